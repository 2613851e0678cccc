//! A crowd of slow clients: heads and bodies that trickle in a byte at a time, and readers who take a large answer by
//! the spoonful. It is also the backend that the slow bodies go to, which hears them and has nothing to say.
//!
//! One JSON line says when all are there (after the first bytes have been sent), another at the end what became of them.

use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde_json::json;
use sluice::base::clock::{Clock, Moment};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::HashMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// The host whose backend is the crowd itself.
const OWN_HOST: &str = "slow.test";
const LISTENER: Token = Token(usize::MAX);
/// Short, so that the bytes of a crowd come evenly and not in bursts.
const TICK: Duration = Duration::from_millis(1);
/// What a slow reader takes at a time, and what its system keeps for it.
const SPOON_BYTES: usize = 1024;
const READER_BUFFER_BYTES: usize = 16 * 1024;

/// Holds slow connections to a proxy.
#[derive(Parser)]
struct Args {
    /// The proxy.
    #[arg(long)]
    target: SocketAddr,
    /// Where to be the backend of `slow.test`.
    #[arg(long)]
    listen: SocketAddr,
    /// How many clients send a head slowly.
    #[arg(long, default_value_t = 0)]
    heads: usize,
    /// How many clients send a body slowly.
    #[arg(long, default_value_t = 0)]
    bodies: usize,
    /// The host that the slow bodies are for. Those for another one than `slow.test` go to its backend.
    #[arg(long, default_value = OWN_HOST)]
    host: String,
    /// How many clients read an answer slowly.
    #[arg(long, default_value_t = 0)]
    readers: usize,
    /// What the readers ask for, of `www.test`.
    #[arg(long, default_value = "/bytes/1000000")]
    path: String,
    /// Seconds between two bytes, or spoonfuls, of one client.
    #[arg(long, default_value_t = 3.0)]
    pause: f64,
    /// For how long they all stay.
    #[arg(long)]
    seconds: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Head,
    Body,
    Reader,
}

struct Client {
    socket: TcpStream,
    kind: Kind,
    is_open: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let clock = Clock::new();
    let mut crowd = Crowd::new(&args)?;
    crowd.gather(&args)?;
    println!("{}", json!({"open": crowd.clients.len(), "at_backend": crowd.guests.len()}));
    let end = clock.now() + Duration::from_secs(args.seconds);
    crowd.linger(&clock, end, Duration::from_secs_f64(args.pause))?;
    let open = |kind| crowd.clients.iter().filter(|client| client.is_open && client.kind == kind).count();
    println!(
        "{}",
        json!({
            "heads": open(Kind::Head), "bodies": open(Kind::Body), "readers": open(Kind::Reader),
            "at_backend": crowd.guests.len(), "trickled": crowd.trickled,
        })
    );
    Ok(())
}

struct Crowd {
    poll: Poll,
    listener: TcpListener,
    clients: Vec<Client>,
    /// The connections to the backend.
    guests: HashMap<usize, TcpStream>,
    next_guest: usize,
    /// Bytes and spoonfuls that went through.
    trickled: u64,
}

impl Crowd {
    fn new(args: &Args) -> io::Result<Self> {
        let poll = Poll::new()?;
        let socket = Socket::new(Domain::for_address(args.listen), Type::STREAM.nonblocking(), None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&args.listen.into())?;
        socket.listen(4096)?;
        let mut listener = TcpListener::from_std(socket.into());
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        // The clients' tokens lie below those of the guests.
        let next_guest = args.heads + args.bodies + args.readers;
        Ok(Self { poll, listener, clients: Vec::new(), guests: HashMap::new(), next_guest, trickled: 0 })
    }

    /// Opens all connections and sends what comes at once.
    fn gather(&mut self, args: &Args) -> io::Result<()> {
        let kinds = [(Kind::Head, args.heads), (Kind::Body, args.bodies), (Kind::Reader, args.readers)];
        let mut events = Events::with_capacity(1024);
        for (kind, count) in kinds {
            for _ in 0..count {
                let mut client = Client::open(args, kind)?;
                // Readers look only when it is their time.
                if kind != Kind::Reader {
                    let token = Token(self.clients.len());
                    self.poll.registry().register(&mut client.socket, token, Interest::READABLE)?;
                }
                self.clients.push(client);
                if self.clients.len().is_multiple_of(64) {
                    self.look(&mut events, Some(Duration::ZERO))?;
                }
            }
        }
        while args.host == OWN_HOST && self.guests.len() < args.bodies {
            self.look(&mut events, Some(Duration::from_secs(1)))?;
        }
        Ok(())
    }

    /// Everybody sends or takes a little in their turn.
    fn linger(&mut self, clock: &Clock, end: Moment, pause: Duration) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let count = self.clients.len();
        let (start, mut done) = (clock.now(), 0_usize);
        while clock.now() < end {
            self.look(&mut events, Some(TICK))?;
            let due = (clock.now().since(start).as_secs_f64() / pause.as_secs_f64() * count as f64) as usize;
            while done < due {
                let went = self.clients[done % count].go_on();
                self.trickled += u64::from(went);
                done += 1;
            }
        }
        Ok(())
    }

    fn look(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &*events {
            match event.token() {
                LISTENER => self.welcome()?,
                Token(number) if number < self.clients.len() => self.clients[number].is_open = false,
                Token(number) => {
                    if self.guests.get_mut(&number).is_some_and(|guest| !hear(guest)) {
                        self.guests.remove(&number);
                    }
                }
            }
        }
        Ok(())
    }

    fn welcome(&mut self) -> io::Result<()> {
        while let Ok((mut guest, _)) = self.listener.accept() {
            self.poll.registry().register(&mut guest, Token(self.next_guest), Interest::READABLE)?;
            self.guests.insert(self.next_guest, guest);
            self.next_guest += 1;
        }
        Ok(())
    }
}

/// Reads whatever has come. Whether more may follow.
fn hear(guest: &mut TcpStream) -> bool {
    loop {
        match guest.read(&mut [0; 4096]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

impl Client {
    fn open(args: &Args, kind: Kind) -> io::Result<Self> {
        let Args { target, path, host, .. } = args;
        let socket = Socket::new(Domain::for_address(*target), Type::STREAM, None)?;
        if kind == Kind::Reader {
            socket.set_recv_buffer_size(READER_BUFFER_BYTES)?;
        }
        socket.connect(&(*target).into())?;
        // At the end of the process they are all gone at once, and leave no port in TIME-WAIT.
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket.into());
        let start = match kind {
            Kind::Head => "GET / HTTP/1.1\r\nHost: www.test\r\nX-Slow: ".to_owned(),
            Kind::Body => format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n"),
            Kind::Reader => format!("GET {path} HTTP/1.1\r\nHost: www.test\r\n\r\n"),
        };
        socket.write_all(start.as_bytes())?;
        Ok(Self { socket, kind, is_open: true })
    }

    /// Whether a byte went, or a spoonful came.
    fn go_on(&mut self) -> bool {
        let result = match self.kind {
            Kind::Reader => self.socket.read(&mut [0; SPOON_BYTES]),
            Kind::Head | Kind::Body => self.socket.write(b"x"),
        };
        match result {
            Ok(count) if count > 0 => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            _ => {
                self.is_open = false;
                false
            }
        }
    }
}
