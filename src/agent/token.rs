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

fn read(path: &Path) -> Result<SecretString, BoxError> {
    let mut text = String::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(MAX_TOKEN_FILE).read_to_string(&mut text));
    file.map_err(|error| format!("{}: {error}", path.display()))?;
    match text.trim() {
        "" => Err(format!("{}: is empty", path.display()).into()),
        token => Ok(SecretString::from(token)),
    }
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
}
