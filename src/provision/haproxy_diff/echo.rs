//! Servers that echo requests.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The longest body that is read.
const LONGEST: u64 = 1 << 20;

/// Echo servers by backend and server. They last as long as the process.
#[derive(Debug, Default)]
pub(super) struct Echoes(Mutex<HashMap<(String, String), SocketAddr>>);

impl Echoes {
    /// The address of the echo server that replaces a server.
    pub(super) fn at(&self, backend: &str, server: &str) -> Result<SocketAddr, String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = known.get(&(backend.to_owned(), server.to_owned())) {
            return Ok(*address);
        }
        let failed = |error: std::io::Error| format!("starting an echo: {error}");
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let name = backend.to_owned();
        let accept = move || {
            for stream in listener.incoming().flatten() {
                let name = name.clone();
                thread::spawn(move || drop(serve(stream, &name)));
            }
        };
        thread::Builder::new().name("echo".to_owned()).spawn(accept).map_err(failed)?;
        known.insert((backend.to_owned(), server.to_owned()), address);
        Ok(address)
    }
}

/// Responds to requests: the body is the name of the backend, the request line and the fields.
fn serve(stream: TcpStream, backend: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let length = lines.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
        });
        let mut body = Vec::new();
        reader.by_ref().take(length.unwrap_or(0).min(LONGEST)).read_to_end(&mut body)?;
        let is_head = lines.first().is_some_and(|line| line.starts_with("HEAD "));
        let text = format!("{backend}\n{}\n", lines.join("\n"));
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: echo\r\nX-Echo: {backend}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        writer.write_all(head.as_bytes())?;
        if !is_head {
            writer.write_all(text.as_bytes())?;
        }
    }
}
