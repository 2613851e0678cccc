//! A real Chromium without a screen, driven by its DevTools protocol.

use super::{PATIENCE, holds_within};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use tungstenite::{Message, WebSocket};

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    dir: PathBuf,
    socket: WebSocket<TcpStream>,
    calls: u64,
    /// What the page has complained of: errors of scripts, and what its policy has refused.
    complaints: Vec<String>,
}

impl Browser {
    /// Opens a page of this size.
    #[track_caller]
    pub(crate) fn open(url: &str, (width, height): (u32, u32)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sluice-browser-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("a folder");
        let mut child = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--remote-debugging-port=0", &format!("--window-size={width},{height}")])
            .arg(format!("--user-data-dir={}", dir.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting chromium (Debian's package of that name)");
        let stderr = child.stderr.take().expect("a pipe");
        let (found, address) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ws://") {
                    // Fails where the test has given up.
                    let _ = found.send(rest.split('/').next().unwrap_or_default().to_owned());
                }
            }
        });
        // A browser takes its time to start on a machine that is busy.
        let address = address.recv_timeout(PATIENCE * 6).expect("chromium listens");
        let socket = connect(&address);
        let mut browser = Self { child, dir, socket, calls: 0, complaints: Vec::new() };
        for domain in ["Runtime", "Log", "Page"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser.call("Emulation.setDeviceMetricsOverride", &size);
        browser.call("Page.navigate", &json!({"url": url}));
        browser
    }

    /// Calls a method of the protocol: its result.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let request = json!({"id": self.calls, "method": method, "params": parameters});
        self.socket.send(Message::text(request.to_string())).expect("chromium listens");
        loop {
            let message = self.socket.read().unwrap_or_else(|error| panic!("{method}: {error}"));
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(text.as_str()).expect("JSON");
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown" | "Log.entryAdded") => {
                    self.complaints.push(message["params"].to_string());
                }
                _ if message["id"] == self.calls => {
                    assert!(message["error"].is_null(), "{method}: {message}");
                    return message["result"].clone();
                }
                _ => {}
            }
        }
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", &parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// What a reader sees of the page.
    pub(crate) fn text(&mut self) -> String {
        self.value("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        let holds = holds_within(PATIENCE * 3, || self.value(expression) == true);
        assert!(holds, "waited in vain: {expression}\n{}", self.text());
    }

    /// Presses and releases a key.
    pub(crate) fn press(&mut self, key: &str) {
        let code = match key {
            "Escape" => 27,
            "Enter" => 13,
            "ArrowDown" => 40,
            _ => 0,
        };
        let mut event = json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code});
        match key {
            "Enter" => event["text"] = json!("\r"),
            _ if key.chars().count() == 1 => event["text"] = json!(key),
            _ => {}
        }
        self.call("Input.dispatchKeyEvent", &event);
        self.call("Input.dispatchKeyEvent", &json!({"type": "keyUp", "key": key}));
    }

    /// Presses the button of this text in this part of the page, and confirms.
    #[track_caller]
    pub(crate) fn confirm(&mut self, part: &str, text: &str) {
        let buttons = format!("[...document.querySelectorAll('{part} button')]");
        let button = format!("{buttons}.find((one) => one.innerText === '{text}')");
        self.until(&format!("!!{button}"));
        self.value(&format!("{button}.click()"));
        self.until("document.getElementById('ask').open");
        assert_eq!(self.value("document.querySelector('#ask button.act').innerText"), text);
        self.value("document.querySelector('#ask button.act').click()");
    }

    /// Waits until the page tells this outcome.
    #[track_caller]
    pub(crate) fn until_said(&mut self, outcome: &str) {
        self.until(&format!("document.getElementById('said').innerText.includes('{outcome}')"));
        self.value("document.getElementById('said').innerText = ''");
    }

    /// A picture of the page in the folder that `SLUICE_SCREENSHOTS` names, for someone to look at.
    pub(crate) fn picture(&mut self, name: &str) {
        let Ok(folder) = std::env::var("SLUICE_SCREENSHOTS") else { return };
        let result = self.call("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}));
        let encoded = result["data"].as_str().expect("a picture");
        let path = PathBuf::from(folder).join(format!("{name}.png.base64"));
        fs::write(path, encoded).expect("a file");
    }

    /// What the page has complained of so far.
    pub(crate) fn complaints(&self) -> &[String] {
        &self.complaints
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A connection to the one page that is open.
fn connect(address: &str) -> WebSocket<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("chromium listens");
    stream.set_read_timeout(Some(PATIENCE * 3)).expect("a timeout");
    write!(stream, "GET /json/list HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("chromium listens");
    let mut response = Vec::new();
    let mut buffer = [0; 4096];
    // It may keep the connection: the list is whole when it can be read.
    let pages = loop {
        let count = stream.read(&mut buffer).expect("the list of pages");
        response.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&response);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        if let Ok(pages) = serde_json::from_str::<Value>(body) {
            break pages;
        }
        assert!(count > 0, "no list of pages: {text}");
    };
    let page = pages.as_array().and_then(|pages| pages.iter().find(|page| page["type"] == "page"));
    let url = page.and_then(|page| page["webSocketDebuggerUrl"].as_str()).expect("a page").to_owned();
    let stream = TcpStream::connect(address).expect("chromium listens");
    stream.set_read_timeout(Some(PATIENCE * 3)).expect("a timeout");
    tungstenite::client(&url, stream).expect("the DevTools protocol").0
}
