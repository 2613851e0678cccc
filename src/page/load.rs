//! Search, reading and rendering of the page files.

use super::{Pages, Settings, phrase};
use crate::base::reason::FailureReason;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

/// The greatest size of a page file: all pages stay in memory.
const FILE_LIMIT_BYTES: u64 = 1024 * 1024;

const BUILTIN: &str = include_str!("builtin.html");

/// The pages, and a sentence for each fault of the files.
pub(super) fn load(settings: &Settings) -> (Pages, Vec<String>) {
    let mut faults = Vec::new();
    let files = match &settings.static_dir {
        Some(dir) => Files::read(dir, settings, &mut faults),
        None => Files::default(),
    };
    let of = |reason: &FailureReason| files.body(*reason, settings.status(*reason));
    let bodies = FailureReason::ALL.iter().map(of).collect();
    let is_built_in = |reason: &FailureReason| files.own(settings.status(*reason)).is_none();
    let are_built_in = FailureReason::ALL.iter().map(is_built_in).collect();
    (Pages { bodies, are_built_in, settings: settings.clone() }, faults)
}

/// The page files of a directory.
#[derive(Default)]
struct Files {
    by_status: Vec<(u16, Arc<[u8]>)>,
    default: Option<Arc<[u8]>>,
}

impl Files {
    fn read(dir: &Path, settings: &Settings, faults: &mut Vec<String>) -> Self {
        if let Err(error) = check_directory(dir) {
            faults.push(format!("server.staticDir: reading {}: {error}; the built-in pages are used", dir.display()));
            return Self::default();
        }
        let mut statuses: Vec<u16> =
            FailureReason::ALL.iter().map(|reason| settings.status(*reason)).filter(has_page).collect();
        statuses.sort_unstable();
        statuses.dedup();
        let mut page = |name: String| read_page(&dir.join(name), faults).map(Arc::from);
        let default = page("error_default.html".to_owned());
        let by_status = |status| page(format!("error_{status}.html")).map(|body| (status, body));
        Self { by_status: statuses.into_iter().filter_map(by_status).collect(), default }
    }

    fn body(&self, reason: FailureReason, status: u16) -> Arc<[u8]> {
        if !has_page(&status) {
            return Arc::default();
        }
        self.own(status).map_or_else(|| builtin(reason, status).into_bytes().into(), Arc::clone)
    }

    fn own(&self, status: u16) -> Option<&Arc<[u8]>> {
        let own = self.by_status.iter().find(|(of, _)| *of == status).map(|(_, body)| body);
        own.or(self.default.as_ref())
    }
}

/// Whether a response with this status can be sent: see [`FailureReason::status`] for 499 and 0.
fn has_page(status: &u16) -> bool {
    *status >= 400 && *status != 499
}

fn check_directory(dir: &Path) -> io::Result<()> {
    if dir.metadata()?.is_dir() { Ok(()) } else { Err(ErrorKind::NotADirectory.into()) }
}

/// A missing page is not a fault.
fn read_page(path: &Path, faults: &mut Vec<String>) -> Option<Vec<u8>> {
    match read_limited(path) {
        Ok(body) => Some(body),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            faults.push(format!("server.staticDir: reading {}: {error}; another page is used", path.display()));
            None
        }
    }
}

pub(super) fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    File::open(path)?.take(FILE_LIMIT_BYTES + 1).read_to_end(&mut body)?;
    if body.len() as u64 > FILE_LIMIT_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "an error page may have 1 MiB at the most"));
    }
    Ok(body)
}

fn builtin(reason: FailureReason, status: u16) -> String {
    BUILTIN
        .replace("{status}", &status.to_string())
        .replace("{phrase}", phrase(status))
        .replace("{sentence}", reason.sentence())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use std::process;

    /// A directory of this test's own, removed at its end.
    struct Dir(PathBuf);

    impl Dir {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sluice-page-{test}-{}", process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn put(&self, name: &str, body: &str) {
            fs::write(self.0.join(name), body).expect("a page");
        }

        fn load(&self) -> (Pages, Vec<String>) {
            load(&Settings { static_dir: Some(self.0.clone()), ..Settings::default() })
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("the directory goes");
        }
    }

    #[test]
    fn the_builtin_page_is_small_and_whole() {
        let (pages, faults) = load(&Settings::default());
        assert_eq!(faults, Vec::<String>::new());
        for reason in FailureReason::ALL {
            let body = String::from_utf8(pages.body(*reason).to_vec()).expect("text");
            if !has_page(&reason.status()) {
                assert_eq!(body, "", "{reason}");
                continue;
            }
            assert!(body.len() < 1536, "{reason}: {} bytes", body.len());
            assert!(!phrase(reason.status()).is_empty(), "{reason}: its status has no phrase");
            assert!(!reason.sentence().contains(['<', '&']), "{reason}: its sentence is no text of HTML");
            assert!(body.contains(&format!("<title>{} {}</title>", reason.status(), phrase(reason.status()))));
            assert!(body.contains(&format!("<p>{}</p>", reason.sentence())));
            assert!(!body.contains("{status}") && !body.contains("{phrase}") && !body.contains("{sentence}"));
            assert!(!body.contains("http:") && !body.contains("https:") && !body.contains("url("), "it loads nothing");
        }
    }

    #[test]
    fn a_status_has_its_file_else_the_default_file_else_the_builtin_page() {
        let dir = Dir::new("rule");
        dir.put("error_502.html", "our 502");
        let (pages, faults) = dir.load();
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(pages.body(FailureReason::NoBackend), b"our 502");
        assert_eq!(pages.body(FailureReason::ConnectFailed), b"our 502");
        assert_eq!(
            pages.body(FailureReason::UnknownHost),
            builtin(FailureReason::UnknownHost, FailureReason::UnknownHost.status()).as_bytes()
        );
        assert_eq!(pages.body(FailureReason::ClientGone), b"");

        dir.put("error_default.html", "our default");
        let (pages, _) = dir.load();
        assert_eq!(pages.body(FailureReason::NoBackend), b"our 502");
        assert_eq!(pages.body(FailureReason::UnknownHost), b"our default");
        assert_eq!(pages.body(FailureReason::ClientGone), b"");
    }

    #[test]
    fn an_unreadable_page_is_named_and_another_takes_its_place() {
        let dir = Dir::new("unreadable");
        dir.put("error_default.html", "our default");
        dir.put("error_503.html", &"x".repeat(1024 * 1024 + 1));
        fs::create_dir(dir.0.join("error_502.html")).expect("a directory in the place of a page");
        let (pages, faults) = dir.load();
        assert_eq!(pages.body(FailureReason::NoBackend), b"our default");
        assert_eq!(pages.body(FailureReason::QueueFull), b"our default");
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("error_502.html"), "{faults:?}");
        assert!(faults[1].contains("error_503.html") && faults[1].contains("1 MiB"), "{faults:?}");
    }

    #[test]
    fn a_missing_directory_is_named_with_its_setting() {
        let (pages, faults) = load(&Settings { static_dir: Some("/nonexistent/pages".into()), ..Settings::default() });
        assert_eq!(
            pages.body(FailureReason::NoBackend),
            builtin(FailureReason::NoBackend, FailureReason::NoBackend.status()).as_bytes()
        );
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("server.staticDir: reading /nonexistent/pages: "), "{faults:?}");
    }
}
