//! A Redis that misbehaves as a test likes: it knows lists, and otherwise says what the story has it say.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Answers a command in its own way, and returns `true`; `false` for the plain answer.
type Story = dyn Fn(&[String], &mut TcpStream) -> bool + Send + Sync;

/// A server that runs until the test's process ends.
pub(crate) struct Fake {
    address: SocketAddr,
    watchers: Arc<Mutex<Vec<TcpStream>>>,
}

struct Served {
    lists: HashMap<String, Vec<String>>,
    story: Box<Story>,
    watchers: Arc<Mutex<Vec<TcpStream>>>,
}

impl Fake {
    /// Starts one that has these lists, by host, and this story.
    pub(crate) fn start(
        lists: &[(&str, String)],
        story: impl Fn(&[String], &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let watchers = Arc::default();
        let list = |(host, url): &(&str, String)| (format!("frontend:{host}"), vec!["site".to_owned(), url.clone()]);
        let served = Arc::new(Served {
            lists: lists.iter().map(list).collect(),
            story: Box::new(story),
            watchers: Arc::clone(&watchers),
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                thread::spawn(move || served.serve(stream));
            }
        });
        Self { address, watchers }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Cuts the connections that are told of changes; whether there was one.
    pub(crate) fn cut_watchers(&self) -> bool {
        let watchers = std::mem::take(&mut *self.watchers.lock().expect("no panic"));
        watchers.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        !watchers.is_empty()
    }
}

impl Served {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut input = BufReader::new(stream.try_clone().ok()?);
        loop {
            let command = read_command(&mut input)?;
            if !(self.story)(&command, &mut stream) {
                let reply = self.reply(&command, &stream);
                stream.write_all(reply.as_bytes()).ok()?;
            }
        }
    }

    fn reply(&self, command: &[String], stream: &TcpStream) -> String {
        match command[0].as_str() {
            "HELLO" => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
            "CLIENT" => {
                let watcher = stream.try_clone().expect("a second handle");
                self.watchers.lock().expect("no panic").push(watcher);
                "+OK\r\n".to_owned()
            }
            "INFO" => bulk(if command[1] == "server" { "run_id:a\r\n" } else { "master_replid:b\r\n" }),
            "LRANGE" => {
                let items = self.lists.get(&command[1]).map_or(&[][..], Vec::as_slice);
                let texts: String = items.iter().map(|item| bulk(item)).collect();
                format!("*{}\r\n{texts}", items.len())
            }
            "HSCAN" => "*2\r\n$1\r\n0\r\n*0\r\n".to_owned(),
            "HMGET" => format!("*{}\r\n{}", command.len() - 2, "$-1\r\n".repeat(command.len() - 2)),
            "SRANDMEMBER" => "*0\r\n".to_owned(),
            "PTTL" | "LLEN" => ":0\r\n".to_owned(),
            "GET" => "$-1\r\n".to_owned(),
            "PING" => "+PONG\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        }
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn read_command(input: &mut impl BufRead) -> Option<Vec<String>> {
    let mut line = String::new();
    let mut number = |input: &mut dyn BufRead| {
        line.clear();
        input.read_line(&mut line).ok()?;
        line.get(1..)?.trim_end().parse::<usize>().ok()
    };
    let count = number(input)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number(input)? + 2];
        input.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}
