//! Error pages of a frontend, and the statuses of what this node says for it.

use super::values::Kind;
use crate::page::OwnPages;
use std::path::Path;
use std::sync::Arc;

/// The greatest size of a page in an option, in bytes.
const MAX_PAGE: usize = 256 * 1024;

/// Error pages of a frontend. Where it has none for a status, the node has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages {
    /// Those of a folder.
    pub folder: Option<Arc<OwnPages>>,
    /// Those that stand in options.
    pub texts: PageTexts,
}

/// Pages that stand in options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageTexts {
    pub(super) forbidden: Option<Arc<str>>,
    pub(super) timeout: Option<Arc<str>>,
    pub(super) too_large: Option<Arc<str>>,
    pub(super) too_many: Option<Arc<str>>,
    pub(super) bad_gateway: Option<Arc<str>>,
    pub(super) unavailable: Option<Arc<str>>,
    pub(super) gateway_timeout: Option<Arc<str>>,
    pub(super) default: Option<Arc<str>>,
}

impl ErrorPages {
    /// The page of this status: of an option, else of the folder, else the default one of either.
    pub fn of(&self, status: u16) -> Option<&[u8]> {
        let Self { folder, texts } = self;
        let text = match status {
            403 => &texts.forbidden,
            408 => &texts.timeout,
            413 => &texts.too_large,
            429 => &texts.too_many,
            502 => &texts.bad_gateway,
            503 => &texts.unavailable,
            504 => &texts.gateway_timeout,
            _ => &None,
        };
        let of_text = text.as_deref().map(str::as_bytes);
        let of_folder = || folder.as_ref()?.of(status);
        let default_text = || texts.default.as_deref().map(str::as_bytes);
        let default_of_folder = || folder.as_ref()?.default();
        of_text.or_else(of_folder).or_else(default_text).or_else(default_of_folder)
    }
}

/// The statuses of a frontend that cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    /// Its list has no backends.
    pub empty: u16,
    /// It is disabled.
    pub disabled: u16,
}

impl Default for Statuses {
    fn default() -> Self {
        Self { empty: 502, disabled: 503 }
    }
}

pub(super) const STATUS: Kind<u16> = Kind {
    expected: "a status from 400 to 599",
    read: |text| text.parse().ok().filter(|status| (400..600).contains(status) && text.len() == 3),
};

pub(super) const PAGE: Kind<Arc<str>> =
    Kind { expected: "a page of up to 256 KiB", read: |text| (text.len() <= MAX_PAGE).then(|| text.into()) };

pub(super) const PAGE_FOLDER: Kind<Arc<OwnPages>> = Kind {
    expected: "the absolute path of a folder that can be read, with error_<status>.html of up to 1 MiB each",
    read: |text| {
        let path = Path::new(text);
        OwnPages::read(path).ok().filter(|_| path.is_absolute()).map(Arc::new)
    },
};
