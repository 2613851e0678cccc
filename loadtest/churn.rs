//! Connections that come and go in every manner: served, reset in the middle, half-closed, full of garbage, sent to
//! backends that refuse. Each is one connection of its own. One JSON line tells how many ended how.

use clap::Parser;
use serde_json::json;
use sluice::base::clock::{Clock, Moment};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// No answer takes as long as this.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens and ends connections in every manner.
#[derive(Parser)]
struct Args {
    /// The proxy.
    #[arg(long)]
    target: SocketAddr,
    /// How many connections to open in all.
    #[arg(long)]
    connections: u64,
    /// How many at once.
    #[arg(long, default_value_t = 32)]
    at_once: u64,
    /// After how long to stop, done or not.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// What the manners are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How a connection goes.
const MANNERS: [(&str, u32, Manner); 9] = [
    ("served", 30, served),
    ("served twice", 10, served_twice),
    ("half-closed", 12, half_closed),
    ("reset in a head", 8, |client, _| client.write_all(b"GET / HTTP/1.1\r\nHost: ww").map(reset)),
    ("reset in a body", 8, reset_in_body),
    ("reset in an answer", 8, reset_in_response),
    ("garbage", 12, garbage),
    ("refused", 10, refused),
    ("silent", 2, |_, _| Ok(End::Closed)),
];

type Manner = fn(&mut TcpStream, &mut fastrand::Rng) -> io::Result<End>;

/// How a connection is to be ended, and what came of it.
enum End {
    Closed,
    Reset,
    Wrong(String),
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let clock = Clock::new();
    let end = clock.now() + Duration::from_secs(args.seconds);
    let left = AtomicU64::new(args.connections);
    let tallies: Vec<BTreeMap<String, u64>> = thread::scope(|scope| {
        let (args, left) = (&args, &left);
        let threads: Vec<_> =
            (0..args.at_once).map(|number| scope.spawn(move || churn(args, number, left, end, clock))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    if tallies.len() as u64 != args.at_once {
        return Err("a thread panicked".into());
    }
    let mut sum = BTreeMap::<String, u64>::new();
    for (what, count) in tallies.into_iter().flatten() {
        *sum.entry(what).or_default() += count;
    }
    println!("{}", json!({"ended": sum, "seconds": clock.now().since(Moment::ZERO).as_secs_f64()}));
    Ok(())
}

fn churn(args: &Args, number: u64, left: &AtomicU64, end: Moment, clock: Clock) -> BTreeMap<String, u64> {
    let mut rng = fastrand::Rng::with_seed(args.seed << 32 | number);
    let mut tally = BTreeMap::new();
    // Addresses of their own, so that there are ports enough.
    let source = SocketAddr::from((Ipv4Addr::from(0x7f00_0100 + u32::try_from(number % 250).unwrap_or(0) + 1), 0));
    let weights: u32 = MANNERS.iter().map(|(_, weight, _)| weight).sum();
    while clock.now() < end
        && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    {
        let mut draw = rng.u32(..weights);
        let drawn = MANNERS.iter().find(|(_, weight, _)| draw.checked_sub(*weight).map(|rest| draw = rest).is_none());
        let Some((name, _, manner)) = drawn else { continue };
        let result = connect(args.target, source).and_then(|mut client| {
            let ended = manner(&mut client, &mut rng)?;
            // A reset leaves no port in TIME-WAIT. Where the answer was read to its end, it is the same to the proxy.
            if matches!(ended, End::Reset) || rng.bool() {
                SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
            }
            Ok(ended)
        });
        let what = match result {
            Ok(End::Wrong(what)) => format!("{name}: {what}"),
            Ok(_) => (*name).to_owned(),
            Err(error) => format!("{name}: {:?}", error.kind()),
        };
        *tally.entry(what).or_default() += 1;
    }
    tally
}

fn connect(target: SocketAddr, source: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&source.into())?;
    socket.connect(&target.into())?;
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(PATIENCE))?;
    Ok(client)
}

fn reset((): ()) -> End {
    End::Reset
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// Reads an answer that tells its length: its status.
fn response(client: &mut TcpStream) -> io::Result<u16> {
    let (mut bytes, mut room) = (Vec::new(), [0; 4096]);
    loop {
        let count = client.read(&mut room)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&room[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            return Ok(head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0));
        }
    }
}

fn expect(client: &mut TcpStream, statuses: &[u16]) -> io::Result<End> {
    let status = response(client)?;
    Ok(if statuses.contains(&status) { End::Closed } else { End::Wrong(format!("status {status}")) })
}

fn served(client: &mut TcpStream, _: &mut fastrand::Rng) -> io::Result<End> {
    client.write_all(get("/", "www.test").as_bytes())?;
    expect(client, &[200])
}

fn served_twice(client: &mut TcpStream, rng: &mut fastrand::Rng) -> io::Result<End> {
    served(client, rng)?;
    served(client, rng)
}

fn half_closed(client: &mut TcpStream, _: &mut fastrand::Rng) -> io::Result<End> {
    client.write_all(get("/", "www.test").as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    // To the proxy it has left (`server.onClientAbort`), unless the response was quicker.
    match expect(client, &[200]) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(End::Closed),
        other => other,
    }
}

fn reset_in_body(client: &mut TcpStream, _: &mut fastrand::Rng) -> io::Result<End> {
    client.write_all(b"POST / HTTP/1.1\r\nHost: www.test\r\nContent-Length: 100000\r\n\r\nabc").map(reset)
}

fn reset_in_response(client: &mut TcpStream, _: &mut fastrand::Rng) -> io::Result<End> {
    client.write_all(get("/bytes/300000", "www.test").as_bytes())?;
    client.read_exact(&mut [0; 100]).map(reset)
}

fn garbage(client: &mut TcpStream, rng: &mut fastrand::Rng) -> io::Result<End> {
    let mut bytes: Vec<u8> = (0..rng.usize(1..200)).map(|_| rng.u8(..)).collect();
    bytes.extend_from_slice(b"\r\n\r\n");
    client.write_all(&bytes)?;
    client.shutdown(Shutdown::Write)?;
    // Whatever it says to that, it has to come to an end.
    match io::copy(client, &mut io::sink()) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(End::Closed),
    }
}

fn refused(client: &mut TcpStream, rng: &mut fastrand::Rng) -> io::Result<End> {
    let host = if rng.bool() { "refused.test" } else { "nobody.test" };
    client.write_all(get("/", host).as_bytes())?;
    expect(client, &[400, 404, 502])
}
