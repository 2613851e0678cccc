//! Detection of peers that have vanished: a machine that lost power or network sends no end.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// The number of successive unanswered probes after which a connection is broken.
const PROBES: u32 = 3;

/// Limits after which a connection ends because its peer does not respond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// Limit for an idle connection: half of it passes before the first probe. `None` sends none
    /// (`server.tcpKeepAlive`).
    pub keep_alive: Option<Duration>,
    /// Limit for a connection with unacknowledged bytes in transit, or with bytes that the peer's full window does not
    /// admit. `None` leaves it to the system, which takes about a quarter of an hour (`server.tcpUserTimeout`).
    pub user_timeout: Option<Duration>,
}

impl Default for Liveness {
    fn default() -> Self {
        let minute = Some(Duration::from_secs(60));
        Self { keep_alive: minute, user_timeout: minute }
    }
}

impl Liveness {
    /// Applies the limits to a connection, or to a listening socket, from which accepted connections inherit them
    /// without further system calls.
    pub(super) fn set(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(socket);
        if let Some(time) = self.keep_alive {
            let second = Duration::from_secs(1);
            let interval = (time / 2 / PROBES).max(second);
            let probing = TcpKeepalive::new().with_time((time / 2).max(second)).with_interval(interval);
            socket.set_tcp_keepalive(&probing.with_retries(PROBES))?;
        }
        match self.user_timeout {
            Some(time) => socket.set_tcp_user_timeout(Some(time)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_a_listening_socket_has_its_connections_inherit() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Liveness::default().set(&listener).expect("options");
        let _client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (accepted, _) = listener.accept().expect("a connection");
        let socket = SockRef::from(&accepted);
        assert!(socket.keepalive().expect("an option"));
        let seconds = |time: io::Result<Duration>| time.expect("an option").as_secs();
        let probing = (seconds(socket.tcp_keepalive_time()), seconds(socket.tcp_keepalive_interval()));
        assert_eq!((probing, socket.tcp_keepalive_retries().expect("an option")), ((30, 10), 3));
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(Duration::from_secs(60)));
    }

    #[test]
    fn where_nothing_is_set_the_system_decides() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Liveness { keep_alive: None, user_timeout: None }.set(&listener).expect("options");
        let socket = SockRef::from(&listener);
        assert!(!socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_user_timeout().expect("an option"), None);
    }
}
