//! TLS settings of a listener of a HAProxy file.

use crate::haproxy::lower::PlannedTls;
use crate::net::tls::{
    CertificateFiles, ClientAuth, NamedCredentials, ServerSettings, TlsServerContext, Versions, load_certificates,
};
use rustls::ServerConfig;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Suffixes of files next to a certificate that are not certificates.
const BESIDE: [&str; 5] = ["key", "ocsp", "issuer", "sctl", "dh"];

/// The settings of a listener. The files read are added to `paths`.
pub(super) fn server(planned: &PlannedTls, paths: &mut Vec<PathBuf>) -> Result<Arc<ServerConfig>, String> {
    let PlannedTls { certificates, lists, strict_sni, lowest, highest, client_authorities } = planned;
    let mut named = Vec::new();
    for certificate in certificates {
        for file in pem_files(&certificate.path)? {
            named.push(load(&file, certificate.key.as_deref(), Vec::new(), paths)?);
        }
    }
    for list in lists {
        read_list(list, &mut named, paths)?;
    }
    let client_auth = match client_authorities {
        None => ClientAuth::None,
        Some((file, is_required)) => {
            paths.push(file.clone());
            let authorities = load_certificates(file).map_err(|fault| fault.to_string())?;
            if *is_required { ClientAuth::Required(authorities) } else { ClientAuth::Optional(authorities) }
        }
    };
    let versions = match (lowest.as_deref(), highest.as_deref()) {
        (Some("TLSv1.3"), _) => Versions::Tls13,
        (_, Some("TLSv1.3") | None) => Versions::Both,
        (_, Some("TLSv1.2")) => Versions::Tls12,
        (_, Some(highest)) => return Err(format!("ssl-max-ver {highest}: sluice speaks TLS 1.2 and 1.3")),
    };
    let context = TlsServerContext::new(&ServerSettings { versions, client_auth, ..ServerSettings::default() })?;
    context.by_name(named, *strict_sni)
}

/// A file, or the files of a folder.
fn pem_files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |error: std::io::Error| format!("reading {}: {error}", path.display());
    let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
    let is_pem = |path: &PathBuf| {
        let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        path.is_file() && !is_hidden && !BESIDE.contains(&ending.as_str())
    };
    let mut files: Vec<_> = entries.iter().map(fs::DirEntry::path).filter(is_pem).collect();
    files.sort();
    Ok(files)
}

/// A certificate and its key: in the file that is named, in one beside the certificate, or in the same file.
fn load(
    file: &Path,
    key: Option<&Path>,
    names: Vec<String>,
    paths: &mut Vec<PathBuf>,
) -> Result<NamedCredentials, String> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".key");
    let beside = PathBuf::from(beside);
    let key = match key {
        Some(key) => key.to_owned(),
        None if beside.exists() => beside,
        None => file.to_owned(),
    };
    paths.extend([file.to_owned(), key.clone()]);
    let files =
        CertificateFiles { certificate: file.to_owned(), chain: Vec::new(), key, passphrase: None, staple: None };
    let credentials = files.load().map_err(|fault| fault.to_string())?;
    Ok(NamedCredentials { credentials, names })
}

/// Reads a `crt-list`: on each line a file, options in brackets, and server names.
fn read_list(list: &Path, named: &mut Vec<NamedCredentials>, paths: &mut Vec<PathBuf>) -> Result<(), String> {
    paths.push(list.to_owned());
    let text = fs::read_to_string(list).map_err(|error| format!("reading {}: {error}", list.display()))?;
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((file, rest)) = line.split_once(char::is_whitespace).or((!line.is_empty()).then_some((line, "")))
        else {
            continue;
        };
        let rest = match rest.trim().strip_prefix('[') {
            Some(inside) => {
                let (words, rest) = inside.split_once(']').unwrap_or((inside, ""));
                let known =
                    words.split_whitespace().all(|word| word == "alpn" || word == "h2,http/1.1" || word == "http/1.1");
                if !known {
                    let place = format!("{}:{}", list.display(), number + 1);
                    return Err(format!("{place}: [{words}]: a certificate of a list has no settings of its own here"));
                }
                rest
            }
            None => rest,
        };
        let filters: Vec<String> = rest.split_whitespace().map(str::to_ascii_lowercase).collect();
        if filters.iter().any(|filter| filter.starts_with('!')) {
            let place = format!("{}:{}", list.display(), number + 1);
            return Err(format!("{place}: a name that is left out (!): sluice takes names that are in"));
        }
        named.push(load(Path::new(file), None, filters, paths)?);
    }
    Ok(())
}
