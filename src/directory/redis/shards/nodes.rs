//! The reply to `CLUSTER NODES`: the servers of a cluster as one of them sees it.
//!
//! Source: the documentation of the command. A line is `<id> <ip:port@cport[,hostname[,…]]> <flags> <master>
//! <ping-sent> <pong-recv> <config-epoch> <link-state> <slot> …`.

use super::super::address::Address;

/// A server in a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: Box<str>,
    pub(super) address: Address,
    pub(super) is_master: bool,
    /// The server thinks that this one has failed.
    pub(super) is_failed: bool,
    /// It is the server that was asked.
    pub(super) is_self: bool,
    pub(super) epoch: u64,
    /// First and last slot of each range that it owns.
    pub(super) slots: Vec<(u16, u16)>,
}

/// The servers of a cluster as one of them sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::directory::redis) struct View {
    pub(super) nodes: Vec<Node>,
}

impl View {
    /// Parses a reply of the server at `asked`. With `by_name`, servers are addressed by the name that they announce, if
    /// there is one: certificates name hosts. Lines without a usable address are left out.
    pub(in crate::directory::redis) fn parse(text: &str, asked: &Address, by_name: bool) -> Self {
        Self { nodes: text.lines().filter_map(|line| parse_line(line, asked, by_name)).collect() }
    }

    /// The server that was asked.
    pub(super) fn own(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.is_self)
    }

    /// The masters that may be connected to.
    pub(super) fn masters(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_master && !(node.is_failed && node.slots.is_empty()))
    }
}

fn parse_line(line: &str, asked: &Address, by_name: bool) -> Option<Node> {
    let mut words = line.split_ascii_whitespace();
    let (id, place, flags) = (words.next()?, words.next()?, words.next()?);
    let epoch = words.nth(3)?.parse().ok()?;
    let has = |flag: &str| flags.split(',').any(|other| other == flag);
    if has("handshake") || has("noaddr") {
        return None;
    }
    let (place, names) = place.split_once(',').unwrap_or((place, ""));
    let name = names.split(',').next().filter(|name| by_name && !name.is_empty() && !name.contains('='));
    let mut address = Address::parse(place.split('@').next()?, asked)?;
    if let Some(name) = name {
        address.host = name.into();
    }
    // The words behind the state of the link are slots; those in brackets are in migration.
    let slots = words.skip(1).filter(|word| !word.starts_with('[')).map(parse_range).collect::<Option<_>>()?;
    let is_failed = has("fail");
    Some(Node { id: id.into(), address, is_master: has("master"), is_failed, is_self: has("myself"), epoch, slots })
}

fn parse_range(word: &str) -> Option<(u16, u16)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let slot = |text: &str| text.parse().ok().filter(|slot| usize::from(*slot) < super::slots::SLOTS);
    Some((slot(first)?, slot(last)?)).filter(|(first, last)| first <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_servers_and_lines_without_an_address_are_left_out() {
        let asked = Address { host: "10.0.0.1".into(), port: 7000 };
        let text = "\
            aa :7000@17000 myself,master - 0 0 3 connected 0-99 105 [93-<-bb] [77->-cc]\n\
            bb 10.0.0.2:7001@17001,redis-2,shard-id=1 master - 0 1 2 connected 100-104\n\
            cc 10.0.0.3:7002@17002 slave aa 0 1 3 connected\n\
            dd 10.0.0.4:7003@17003 master,fail - 1 1 1 disconnected\n\
            ee :0@0 master,noaddr - 0 0 0 disconnected 5\n\
            ff 10.0.0.6:7005@17005 handshake - 0 0 0 connected\n\
            gg ::1:7006@17006 master,fail? - 0 0 4 connected 16383\n\
            hh 10.0.0.8:7007@17007 master - 0 0 4 connected 16384\n\
            ii 10.0.0.9\n";
        let view = View::parse(text, &asked, false);
        let found: Vec<_> =
            view.nodes.iter().map(|node| format!("{} {} {:?}", node.id, node.address, node.slots)).collect();
        assert_eq!(
            found,
            [
                "aa 10.0.0.1:7000 [(0, 99), (105, 105)]",
                "bb 10.0.0.2:7001 [(100, 104)]",
                "cc 10.0.0.3:7002 []",
                "dd 10.0.0.4:7003 []",
                "gg [::1]:7006 [(16383, 16383)]",
            ]
        );
        let masters: Vec<_> = view.masters().map(|node| (&*node.id, node.epoch)).collect();
        assert_eq!(masters, [("aa", 3), ("bb", 2), ("gg", 4)]);
        assert_eq!(view.own().map(|node| &*node.id), Some("aa"));
        let by_name = View::parse(text, &asked, true);
        assert_eq!(by_name.nodes[1].address.to_string(), "redis-2:7001");
        assert_eq!(View::parse("\u{0}x", &asked, true), View::default());
    }
}
