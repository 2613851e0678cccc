//! sluice: a reverse proxy for edge nodes, one pinned thread a core.
//!
//! # The map
//!
//! A room is a module of the crate. It imports only from lower floors, and not from rooms of its own floor.
//! `tests/floors.rs` reads this table and fails on an import that breaks the rule, on files of a room that import each
//! other in a circle, and on a file of more than 500 lines.
//!
//! | floor | room | contents |
//! |---|---|---|
//! | 0 | [`base`] | clock, timer wheel, generational slots, buffer pool, counters and histograms of a core, rate limiter, file watch, the one enum of failure reasons |
//! | 1 | [`wire`] | HTTP/1.1 as bytes: heads, *the one* decision about a body's length, chunked coding, hop-by-hop and forwarded fields, PROXY protocol, upgrades, WebSocket frames |
//! | 1 | [`net`] | listening sockets, non-blocking sockets, TLS, mailboxes, limits per client address, files passed to another process. No HTTP |
//! | 2 | [`cache`] | object cache: rules of RFC 9111, the store of all cores, one fill for many requests. Pure |
//! | 2 | [`page`] | error pages of this node |
//! | 2 | [`access_log`] | access log: record, formats, batches, and the thread that writes |
//! | 2 | [`health`] | judgement of backends: dead marks, outlier detection, verdicts of probes. Pure |
//! | 2 | [`shaper`] | fairness between classes of requests: tree of token buckets, queues, classification. Pure |
//! | 2 | [`route`] | candidate patterns of a host, a core's cache of look-ups |
//! | 3 | [`cluster`] | endpoints, members, clusters, routes; options and attributes; admission: slots, queues and rates |
//! | 3 | [`disk`] | disk tier of the object cache: one thread, its files, and the index of stored objects |
//! | 4 | [`balance`] | schedulers, one a file: functions of a cluster and a view of the request |
//! | 4 | [`haproxy`] | HAProxy configuration files: lexer, sections, model, and rules with stick tables as they serve. Pure |
//! | 5 | [`exchange`] | one request from head to last byte, as an enum of states: retries, cache, rules, tunnel. No I/O, no clock |
//! | 5 | [`upstream`] | connection pool of a core, and its queue |
//! | 5 | [`probe`] | health probes: one thread for all clusters, its schedule and its connections |
//! | 5 | [`directory`] | sources of routes and certificates: file, Redis, on-demand clusters; name resolution, snapshot, nodes of a fleet |
//! | 7 | [`worker`] | one core: accepts, pumps bytes in batches, performs effects (*the one* match), reads mail, drains |
//! | 8 | [`admin`] | admin service: views, metrics, actions, x0d's API, HAProxy's statistics, on threads of its own |
//! | 9 | [`config`] | configuration text to checked settings; one run reports all faults |
//! | 10 | [`supervisor`] | the process: listeners, workers and their replacement, HAProxy files, signals, upgrade, privileges |
//! | 11 | [`provision`] | tools: copies a routes file into Redis, explains the resolution of a host, compares with HAProxy |
//! | 11 | [`demo`] | the built-in demonstration |
//! | 12 | [`cli`] | command line, the program's own log, `check`, `status`, `why` and other commands |
//!
//! Every room owns its `Settings`. `config` is above the rooms because it fills the settings of all of them; no room
//! below it depends on the configuration file.
//!
//! # House rules
//!
//! * `wire` and `exchange` know no socket, no clock and no file: bytes and events in, bytes and effects out.
//! * Every request that ends without a complete response of a backend has one [`base::reason::FailureReason`].
//! * A limit that is reached gives a defined response and a counter, never growth.
//! * The request path takes no lock, never blocks, and allocates nothing in the steady state.
//! * Code that few requests need is `#[cold]`; code that only some kinds of requests need (tunnels, uploads, TLS, the log)
//!   is `#[inline(never)]`. So the code of every request is contiguous and stays in the instruction cache.

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
