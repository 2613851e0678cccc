//! A Redis Cluster of a test's own: three masters and three replicas.

use crate::server::Server;
use crate::support::{PATIENCE, holds_within, until, unused_address};
use redis::{Cmd, FromRedisValue, RedisError, Value, cmd};
use std::net::SocketAddr;
use std::process::Command;

/// All ports are the same: each server has an address of its own. The bus is at the port plus 10,000.
const PORT: u16 = 17_000;

/// The servers, those that were killed among them.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
    options: Vec<String>,
}

/// A line of `CLUSTER NODES`.
struct NodeLine {
    flags: String,
    slots: Vec<(u16, u16)>,
}

impl NodeLine {
    fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let slot = |text: &str| text.parse().expect("a slot");
        let range = |word: &&str| {
            word.split_once('-').map_or_else(|| (slot(word), slot(word)), |(one, two)| (slot(one), slot(two)))
        };
        Self {
            flags: words[2].to_owned(),
            slots: words[8..].iter().filter(|word| !word.starts_with('[')).map(range).collect(),
        }
    }

    fn is_master(&self) -> bool {
        self.flags.split(',').any(|flag| flag == "master") && !self.flags.split(',').any(|flag| flag == "fail")
    }
}

impl Cluster {
    /// Six servers.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Six servers with more options.
    pub(crate) fn with(options: &[&str]) -> Self {
        Self::at(&Self::addresses(), options)
    }

    /// Addresses for six servers.
    pub(crate) fn addresses() -> [SocketAddr; 6] {
        [(); 6].map(|()| SocketAddr::new(unused_address().ip(), PORT))
    }

    /// Six servers at these addresses.
    pub(crate) fn at(addresses: &[SocketAddr; 6], options: &[&str]) -> Self {
        let mut all = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"];
        all.extend(["--cluster-config-file", "nodes.conf", "--cluster-require-full-coverage", "no"]);
        all.extend(["--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"]);
        all.extend(["--repl-timeout", "10"]);
        all.extend(options);
        let options: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let mut cluster = Self { servers: Vec::new(), options };
        addresses.iter().for_each(|address| _ = cluster.add_at(*address));
        let addresses: Vec<String> = cluster.servers.iter().map(|server| server.address().to_string()).collect();
        let mut arguments = vec!["create"];
        arguments.extend(addresses.iter().map(String::as_str));
        arguments.extend(["--cluster-replicas", "1"]);
        cluster.manage(&arguments);
        until("all servers know the cluster", || cluster.agrees_on(6));
        until("replicas follow", || {
            let info = cluster.servers.iter().map(|server| server.run::<String>("INFO replication"));
            info.filter(|info| info.contains("master_link_status:up")).count() == 3
        });
        cluster
    }

    /// Starts a server that is not in the cluster yet. Returns its place.
    pub(crate) fn add_server(&mut self) -> usize {
        self.add_at(SocketAddr::new(unused_address().ip(), PORT))
    }

    fn add_at(&mut self, address: SocketAddr) -> usize {
        let mut options = self.options.clone();
        options.extend(["--cluster-announce-ip".to_owned(), address.ip().to_string()]);
        self.servers.push(Server::at(address, options));
        self.servers.len() - 1
    }

    /// Runs `redis-cli --cluster`.
    pub(crate) fn manage(&self, arguments: &[&str]) {
        let mut command = Command::new("redis-cli");
        command.arg("--cluster").args(arguments).arg("--cluster-yes");
        let output = command.output().expect("running redis-cli (Debian's package redis-tools)");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "redis-cli --cluster {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The URL of the driver. It names two of the servers.
    pub(crate) fn url(&self) -> String {
        format!("redis+cluster://{},{}", self.servers[0].address(), self.servers[1].address())
    }

    /// Whether each server serves and knows this many servers, and all of them the same owners of slots.
    pub(crate) fn agrees_on(&self, count: usize) -> bool {
        let serves = |server: &Server| server.run::<String>("CLUSTER INFO").contains("cluster_state:ok");
        if !self.living().all(serves) {
            return false;
        }
        let views = self.living().map(|server| {
            let mut nodes = self.nodes_of(server);
            nodes.sort_by_key(|node| node.slots.clone());
            let is_whole = nodes.len() == count && !nodes.iter().any(|node| node.flags.contains("handshake"));
            (is_whole, nodes.into_iter().map(|node| node.slots).collect::<Vec<_>>())
        });
        let views: Vec<_> = views.collect();
        views.iter().all(|view| view.0 && *view == views[0])
    }

    fn nodes_of(&self, server: &Server) -> Vec<NodeLine> {
        server.run::<String>("CLUSTER NODES").lines().map(NodeLine::read).collect()
    }

    /// The living servers.
    pub(crate) fn living(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.is_running())
    }

    /// The place of a server that says that it owns the slot of a key.
    pub(crate) fn claimant(&self, key: &str) -> Option<usize> {
        let slot = self.slot(key);
        self.servers.iter().position(|server| server.is_running() && self.claims(server, slot))
    }

    /// The place of the server that owns the slot of a key.
    pub(crate) fn owner(&self, key: &str) -> usize {
        let mut found = None;
        let is_found = holds_within(PATIENCE, || {
            found = self.claimant(key);
            found.is_some()
        });
        assert!(is_found, "nobody owns the slot of {key}");
        found.expect("just found")
    }

    fn claims(&self, server: &Server, slot: u16) -> bool {
        let own = self.nodes_of(server).into_iter().find(|node| node.flags.contains("myself"));
        own.is_some_and(|own| own.is_master() && own.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot)))
    }

    pub(crate) fn slot(&self, key: &str) -> u16 {
        self.living().next().expect("a server").run(&format!("CLUSTER KEYSLOT {key}"))
    }

    /// The id of the server at this place.
    pub(crate) fn id(&self, place: usize) -> String {
        self.servers[place].run("CLUSTER MYID")
    }

    /// Executes a command at the owner of its key, as clients of a cluster do: redirections are followed.
    pub(crate) fn run<T: FromRedisValue>(&self, line: &str) -> T {
        let mut words = line.split(' ');
        let mut command = cmd(words.next().unwrap_or_default());
        words.for_each(|word| _ = command.arg(word));
        self.execute(&command, line)
    }

    /// The same with a command; `line` is what a failure shows.
    pub(crate) fn execute<T: FromRedisValue>(&self, command: &Cmd, line: &str) -> T {
        let mut result = Err(RedisError::from((redis::ErrorKind::Io, "not asked")));
        let is_done = holds_within(PATIENCE, || {
            let servers: Vec<&Server> = self.living().collect();
            let mut place = fastrand::usize(..servers.len());
            for _ in 0..6 {
                let mut connection = servers[place].connect();
                let reply: Result<Value, _> = command.query(&mut connection);
                let Some(code @ ("MOVED" | "ASK")) = reply.as_ref().err().and_then(RedisError::code) else {
                    result = reply;
                    break;
                };
                let detail = reply.as_ref().err().and_then(RedisError::detail).expect("a place").to_owned();
                let next = servers.iter().position(|server| detail.ends_with(&server.address().to_string()));
                let Some(next) = next else { break };
                place = next;
                if code == "ASK" {
                    let mut connection = servers[place].connect();
                    let asked = redis::pipe()
                        .cmd("ASKING")
                        .ignore()
                        .add_command(command.clone())
                        .query::<(Value,)>(&mut connection);
                    result = asked.map(|(value,)| value);
                    break;
                }
            }
            result.is_ok()
        });
        assert!(is_done, "{line}: {result:?}");
        redis::from_redis_value(result.expect("just seen")).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Puts a list in the place of a frontend's, in one step. The key is there all the time: a script that removes it cannot
    /// write it again while its slot is migrated.
    pub(crate) fn set(&self, pattern: &str, urls: &[String]) {
        const SET: &str = "local before = redis.call('LLEN', KEYS[1]) redis.call('RPUSH', KEYS[1], unpack(ARGV)) \
            redis.call('LTRIM', KEYS[1], before, -1)";
        let mut command = cmd("EVAL");
        command.arg(SET).arg(1).arg(format!("frontend:{pattern}")).arg("site").arg(urls);
        self.execute::<()>(&command, pattern);
    }
}
