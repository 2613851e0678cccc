//! Tools for operators of routes in Redis: copying a file by difference, and the resolution of a host.

mod carry;
mod explain;
pub mod haproxy_diff;

pub use carry::{Carried, carry, keep_in_step};
pub use explain::{Explained, explain, list};

use crate::directory;
use redis::RedisError;
use std::fmt;

/// Why a tool failed.
#[derive(Debug)]
pub enum Error {
    /// The routes file is invalid.
    File(directory::Error),
    /// An operation of Redis failed.
    Redis {
        /// The step that failed.
        doing: String,
        /// Why it failed.
        error: RedisError,
    },
    /// The host is invalid: no request can name it.
    Host(String),
    /// Watching the file failed.
    Watch(std::io::Error),
}

impl Error {
    fn redis(doing: impl Into<String>) -> impl FnOnce(RedisError) -> Self {
        |error| Self::Redis { doing: doing.into(), error }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Redis { doing, error } => write!(f, "{doing}: {error}"),
            Self::Host(host) => write!(f, "{host:?} is no host with an optional port; requests for it get a 400"),
            Self::Watch(error) => write!(f, "watching the routes file: {error}"),
        }
    }
}

impl std::error::Error for Error {}
