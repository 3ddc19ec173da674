//! Where an agent's bearer token comes from, and how it is shown to the server and to nobody else.

use std::{
    fmt,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::{HeaderValue, header::InvalidHeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
};

use super::connect::{BoxError, BoxFuture};

/// The longest token that is read from a file, in bytes: what HTTP servers take in a header.
const MAX_TOKEN_FILE: u64 = 8 * 1024;

/// Where the bearer token comes from.
pub(crate) enum Token {
    /// Given.
    Value(SecretString),
    /// Read at each attempt.
    File(PathBuf, Reading),
    /// Asked at each attempt.
    Source(Arc<dyn Fn() -> BoxFuture<'static, Result<SecretString, BoxError>> + Send + Sync>),
}

/// Reads of a file, one at a time: where they hang, as from a mount whose server is away, one thread does and no more.
#[derive(Default)]
pub(crate) struct Reading(Mutex<Option<JoinHandle<Result<SecretString, BoxError>>>>);

impl Reading {
    /// What `read` gives, or a read that nobody waits for any more and that is still under way.
    ///
    /// # Cancel safety
    /// Dropped midway, the read goes on, for who comes next.
    pub(crate) async fn one(
        &self,
        read: impl FnOnce() -> Result<SecretString, BoxError> + Send + 'static,
    ) -> Result<SecretString, BoxError> {
        let mut under_way = self.0.lock().await;
        // What one has read that has ended since may be old.
        let reading = under_way.take().filter(|reading| !reading.is_finished());
        let answer = under_way.insert(reading.unwrap_or_else(|| spawn_blocking(read))).await;
        *under_way = None;
        answer?
    }
}

impl Token {
    /// Whether a token that is known already can be sent.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Value(token) if token.expose_secret().is_empty() => Err("is empty"),
            Self::Value(token) => bearer(token).map(drop).map_err(|_| "has a character that no header can have"),
            Self::File(path, _) if path.as_os_str().is_empty() => Err("the path of its file is empty"),
            Self::File(..) | Self::Source(_) => Ok(()),
        }
    }

    /// The token for one attempt.
    pub(crate) async fn ask(&self) -> Result<SecretString, BoxError> {
        match self {
            Self::Value(token) => Ok(token.clone()),
            Self::Source(source) => source().await,
            Self::File(path, reading) => {
                let path = path.clone();
                reading.one(move || read(&path)).await
            }
        }
    }
}

/// Only from what is a file: a pipe, where nobody writes, would hold its thread for ever.
fn read(path: &Path) -> Result<SecretString, BoxError> {
    if !std::fs::metadata(path).map_err(|error| named(path, error))?.is_file() {
        return Err(named(path, "is not a regular file"));
    }
    let mut text = String::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(MAX_TOKEN_FILE).read_to_string(&mut text));
    file.map_err(|error| named(path, error))?;
    match text.trim() {
        "" => Err(named(path, "is empty")),
        token => Ok(SecretString::from(token)),
    }
}

/// Why there is no token in this file.
pub(crate) fn named(path: &Path, why: impl fmt::Display) -> BoxError {
    format!("{}: {why}", path.display()).into()
}

/// The value of `Authorization`; its `Debug` shows nothing of the token.
pub(crate) fn bearer(token: &SecretString) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Token(..)"),
            Self::File(path, _) => f.debug_tuple("TokenFile").field(path).finish(),
            Self::Source(_) => f.write_str("TokenSource(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::mpsc};

    use futures_util::FutureExt;

    use super::*;

    fn in_file(path: &Path) -> Token {
        Token::File(path.to_owned(), Reading::default())
    }

    #[tokio::test]
    async fn a_token_file_is_read_at_each_attempt_and_trimmed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let token = in_file(file.path());
        for text in ["one", " two\n"] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(token.ask().await.unwrap().expose_secret(), text.trim());
        }
        std::fs::write(file.path(), " \n").unwrap();
        let path = file.path().display().to_string();
        assert!(token.ask().await.unwrap_err().to_string().contains(&path), "an empty file is named");
        drop(file);
        assert!(token.ask().await.unwrap_err().to_string().contains(&path), "so is one that is not there");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_is_no_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        for path in [dir.path(), &pipe, Path::new("/dev/zero")] {
            let asked = in_file(path);
            let answer =
                tokio::time::timeout(std::time::Duration::from_secs(10), asked.ask()).await.expect("an answer");
            let why = answer.unwrap_err().to_string();
            assert_eq!(why, format!("{}: is not a regular file", path.display()));
        }
        // A link to a file is one, as that of a mounted secret.
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "token").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(in_file(&link).ask().await.unwrap().expose_secret(), "token");
    }

    /// A read that hangs until it is told what it has read.
    fn hanging() -> (mpsc::Sender<&'static str>, impl FnOnce() -> Result<SecretString, BoxError> + Send + 'static) {
        let (tell, told) = mpsc::channel();
        (tell, move || Ok(told.recv()?.into()))
    }

    #[tokio::test]
    async fn who_asks_while_a_read_hangs_waits_for_that_and_begins_no_other() {
        let reading = Reading::default();
        let (tell, read) = hanging();
        assert!(reading.one(read).now_or_never().is_none());
        for _ in 0..3 {
            assert!(reading.one(|| Err("a second read".into())).now_or_never().is_none());
        }
        let mut asked = pin!(reading.one(|| Err("a second read".into())));
        assert!(asked.as_mut().now_or_never().is_none());
        tell.send("token").unwrap();
        assert_eq!(asked.await.unwrap().expose_secret(), "token");
        assert_eq!(reading.one(|| Ok("another".into())).await.unwrap().expose_secret(), "another");
    }

    #[tokio::test]
    async fn what_was_read_too_late_for_who_asked_is_not_taken_for_new() {
        let reading = Reading::default();
        let (tell, read) = hanging();
        assert!(reading.one(read).now_or_never().is_none());
        tell.send("old").unwrap();
        let ended = async {
            while !reading.0.lock().await.as_ref().unwrap().is_finished() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.expect("an end of the read");
        assert_eq!(reading.one(|| Ok("new".into())).await.unwrap().expose_secret(), "new");
    }
}
