//! A client of the admin service, for the commands that show a running node.

use crate::admin::Bind;
use crate::base::secret::Secret;
use crate::config::{self, Overrides};
use clap::Args;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The limit of the node's response.
const PATIENCE: Duration = Duration::from_secs(5);

/// The limit of silence in a stream of events.
const STREAM_PATIENCE: Duration = Duration::from_secs(20);

/// A longer response, or a longer line of a stream, is not one of this service.
const MAX_RESPONSE: u64 = 64 << 20;

/// The location of the node's admin service.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Node {
    /// The configuration whose admin.bind and admin.token are used [default: config/config.json]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The address of the admin service, or unix:/PATH, instead of the configuration's
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<Bind>,
    /// The file of the token, instead of the configuration's
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// The admin service of one node.
#[derive(Clone)]
pub(super) struct AdminClient {
    address: Bind,
    token: Option<Secret>,
}

/// A connection to the admin service.
trait Connection: Read + Write + Send {}

impl<T: Read + Write + Send> Connection for T {}

/// A stream of events.
pub(super) struct EventStream(BufReader<Box<dyn Connection>>);

impl AdminClient {
    /// The service named by the arguments, or by the configuration `file`.
    pub(super) fn find(node: &Node, file: &Path) -> Result<Self, String> {
        let token_file = node.token_file.as_deref();
        let token = token_file
            .map(config::read_password_file)
            .transpose()
            .map_err(|problem| format!("--token-file: {problem}"))?;
        if let Some(address) = node.admin.clone() {
            return Ok(Self { address, token });
        }
        let (settings, _) = config::load(file, &Overrides::default()).map_err(|failure| failure.to_string())?;
        let admin = settings.admin;
        let off = || format!("{}: admin.bind is false: this node has no admin service", file.display());
        Ok(Self { address: admin.bind.ok_or_else(off)?, token: token.or(admin.token) })
    }

    /// The view at a path; `None` if the service has none.
    pub(super) fn view(&self, path: &str) -> Result<Option<Value>, String> {
        let (status, mut body) = self.get(path, PATIENCE).map_err(|error| self.failed(&error))?;
        let mut text = Vec::new();
        Read::by_ref(&mut body).take(MAX_RESPONSE).read_to_end(&mut text).map_err(|error| self.failed(&error))?;
        match status {
            200 => Ok(Some(serde_json::from_slice(&text).unwrap_or_default())),
            404 => Ok(None),
            _ => Err(self.refused(path, status, &text)),
        }
    }

    /// The events of `/v1/events` with this query.
    pub(super) fn events(&self, query: &str) -> Result<EventStream, String> {
        let path = format!("/v1/events?{query}");
        let (status, mut body) = self.get(&path, STREAM_PATIENCE).map_err(|error| self.failed(&error))?;
        if status == 200 {
            return Ok(EventStream(body));
        }
        let mut text = Vec::new();
        Read::by_ref(&mut body).take(MAX_RESPONSE).read_to_end(&mut text).map_err(|error| self.failed(&error))?;
        Err(self.refused(&path, status, &text))
    }

    /// The message for a request that has failed.
    pub(super) fn failed(&self, error: &io::Error) -> String {
        format!("asking the admin service at {}: {error}", self.address)
    }

    fn refused(&self, path: &str, status: u16, body: &[u8]) -> String {
        let value = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let detail = value["detail"].as_str().unwrap_or("no reason was given");
        format!("the admin service at {} refuses {path}: {status}, {detail}", self.address)
    }

    /// The status of a response, and its body up to the end of the connection.
    fn get(&self, path: &str, patience: Duration) -> io::Result<(u16, BufReader<Box<dyn Connection>>)> {
        let (mut connection, host): (Box<dyn Connection>, _) = match &self.address {
            Bind::Address(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_read_timeout(Some(patience))?;
                (Box::new(stream), address.to_string())
            }
            Bind::Unix(socket) => {
                let stream = UnixStream::connect(socket)?;
                stream.set_read_timeout(Some(patience))?;
                (Box::new(stream), "localhost".to_owned())
            }
        };
        let authorization = self.token.as_ref().map(|token| format!("Authorization: Bearer {}\r\n", token.reveal()));
        let authorization = authorization.unwrap_or_default();
        write!(connection, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}Connection: close\r\n\r\n")?;
        let mut reader = BufReader::new(connection);
        let no_http = || io::Error::new(io::ErrorKind::InvalidData, "the reply is not an HTTP response");
        let first = read_line(&mut reader)?.filter(|line| line.starts_with("HTTP/1.")).ok_or_else(no_http)?;
        let status = first.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(no_http)?;
        while !read_line(&mut reader)?.ok_or_else(no_http)?.is_empty() {}
        Ok((status, reader))
    }
}

impl EventStream {
    /// The next event: its name and its data; `None` at the end of the stream.
    pub(super) fn next(&mut self) -> io::Result<Option<(String, Value)>> {
        let mut name = String::new();
        while let Some(line) = read_line(&mut self.0)? {
            if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data = serde_json::from_str(data).map_err(io::Error::from)?;
                return Ok(Some((name, data)));
            }
        }
        Ok(None)
    }
}

/// The next line without its end; `None` at the end.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    reader.take(MAX_RESPONSE).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_read_one_by_one() {
        let text = "retry: 2000\n\nevent: status\ndata: {\"a\":1}\n\nevent: source\r\ndata: []\r\n\r\nevent: cut\nda";
        let connection: Box<dyn Connection> = Box::new(io::Cursor::new(text.as_bytes().to_vec()));
        let mut events = EventStream(BufReader::new(connection));
        assert_eq!(events.next().expect("an event"), Some(("status".to_owned(), json!({"a": 1}))));
        assert_eq!(events.next().expect("an event"), Some(("source".to_owned(), json!([]))));
        assert_eq!(events.next().expect("the end"), None);
    }
}
