//! Where an agent's bearer token comes from, and how it is shown to the server and to nobody else.

use std::{
    fmt,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::{HeaderValue, header::InvalidHeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::connect::{BoxError, BoxFuture};

/// The longest token that is read from a file, in bytes: what HTTP servers take in a header.
const MAX_TOKEN_FILE: u64 = 8 * 1024;

/// Where the bearer token comes from.
pub(crate) enum Token {
    /// Given.
    Value(SecretString),
    /// Read at each attempt.
    File(PathBuf),
    /// Asked at each attempt.
    Source(Arc<dyn Fn() -> BoxFuture<'static, Result<SecretString, BoxError>> + Send + Sync>),
}

impl Token {
    /// Whether a token that is known already can be sent.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Value(token) if token.expose_secret().is_empty() => Err("is empty"),
            Self::Value(token) => bearer(token).map(drop).map_err(|_| "has a character that no header can have"),
            Self::File(path) if path.as_os_str().is_empty() => Err("the path of its file is empty"),
            Self::File(_) | Self::Source(_) => Ok(()),
        }
    }

    /// The token for one attempt.
    pub(crate) async fn ask(&self) -> Result<SecretString, BoxError> {
        match self {
            Self::Value(token) => Ok(token.clone()),
            Self::Source(source) => source().await,
            Self::File(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || read(&path)).await?
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

fn named(path: &Path, why: impl fmt::Display) -> BoxError {
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
            Self::File(path) => f.debug_tuple("TokenFile").field(path).finish(),
            Self::Source(_) => f.write_str("TokenSource(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_file_is_read_at_each_attempt_and_trimmed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let token = Token::File(file.path().to_owned());
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
            let asked = Token::File(path.to_owned());
            let answer =
                tokio::time::timeout(std::time::Duration::from_secs(10), asked.ask()).await.expect("an answer");
            let why = answer.unwrap_err().to_string();
            assert_eq!(why, format!("{}: is not a regular file", path.display()));
        }
        // A link to a file is one, as that of a mounted secret.
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "token").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(Token::File(link).ask().await.unwrap().expose_secret(), "token");
    }
}
