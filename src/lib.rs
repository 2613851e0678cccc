//! sluice: a reverse proxy for edge nodes, one pinned thread a core.
//!
//! # The map
//!
//! A room imports only from lower floors; siblings do not import each other. `tests/floors.rs` reads this table, walks
//! the paths of all files and fails on a breach; it also fails on files of a room that import each other in a circle, and
//! on a file of more than 500 lines.
//!
//! | floor | room | what lives there |
//! |---|---|---|
//! | 0 | [`base`] | clock, moments, generational slots, timer wheel, buffer pool, counters, the one enum of failures |
//! | 1 | [`wire`] | HTTP/1.1 as bytes: heads, *the one* body-length decision, chunked, hop-by-hop and forwarded headers |
//! | 1 | [`net`] | listeners, mailbox with waker, alarm, transport. No HTTP |
//! | 2 | [`cache`] | object cache: rules of RFC 9111, the store of all cores, one fill for many requests. Pure |
//! | 2 | [`page`], [`access_log`] | error pages; log record and sink |
//! | 2 | [`health`] | judgement of backends by responses and by probes. Pure |
//! | 2 | [`shaper`] | fairness between classes of requests: tree of token buckets, queues, classification. Pure |
//! | 2 | [`route`] | host-name ladder, per-core LRU of answers |
//! | 3 | [`cluster`] | endpoint, member, cluster, route; options and attributes; admission: permit and queue |
//! | 3 | [`disk`] | disk tier of the object cache: one thread, its files, and which of them there are |
//! | 4 | [`balance`] | one scheduler a file: a function over a cluster and a view of the request |
//! | 4 | [`haproxy`] | HAProxy configuration files: lexer, sections, rules; what is served of them, and the rules at work. Pure |
//! | 5 | [`exchange`] | one request from head to last byte as an enum of states; no I/O, no clock |
//! | 5 | [`upstream`] | pool of connections to backends, a core's own |
//! | 5 | [`probe`] | health probes: one thread for all clusters, its schedule and its connections |
//! | 5 | [`directory`] | where routes come from: a file or Redis, name resolution, what changed for whom, the snapshot, the nodes of a Redis |
//! | 7 | [`worker`] | one core: accept, pump in batches, *the* match that performs effects, mail, drain |
//! | 8 | [`admin`] | views, metrics and actions for operators, made by a thread of their own |
//! | 9 | [`config`] | text as written to validated settings, with every fault found at once |
//! | 10 | [`supervisor`] | binds listeners, spawns, pins, renews and replaces workers, signals, stop |
//! | 11 | [`provision`] | tools: a routes file carried into Redis, what a host resolves to |
//! | 11 | [`demo`] | the built-in demonstration |
//! | 12 | [`cli`] | arguments, and what they start |
//!
//! Every room owns its `Settings`; `config` stands above the rooms because it fills them all, and no room below it
//! knows that there is a file.
//!
//! # House rules
//!
//! * `wire` and `exchange` know no socket, no clock and no file: bytes and events in, bytes and effects out.
//! * Whatever ends a request other than a backend's answer is one variant of [`base::reason::FailureReason`].
//! * A limit that is hit gives a defined answer and a counter, never growth.
//! * The request path takes no lock, blocks on nothing and in the steady state allocates nothing.
//! * What hardly any request needs is `#[cold]`, and what only some kinds need (tunnels, uploads, encryption, the log) is
//!   `#[inline(never)]`: so the code that every request runs through lies close together and stays in the cache.

pub mod base;
pub mod wire;

pub mod net;

pub mod access_log;
pub mod cache;
pub mod health;
pub mod page;
pub mod route;
pub mod shaper;

pub mod cluster;
pub mod disk;

pub mod balance;

pub mod directory;
pub mod exchange;
pub mod haproxy;
pub mod probe;
pub mod upstream;

pub mod worker;

pub mod admin;

pub mod config;

pub mod supervisor;

pub mod demo;
pub mod provision;

pub mod cli;
