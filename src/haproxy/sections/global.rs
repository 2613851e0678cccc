//! The keywords of `global`.

use super::arguments::Arguments;
use super::lines::log_target;
use crate::haproxy::keyword::Treatment::{self, Honoured, Ignored, Lost, Mapped};
use crate::haproxy::model::Global;
use crate::haproxy::position::Fault;

/// A keyword of `global`.
pub(in super::super) struct GlobalWord {
    pub(in super::super) name: &'static str,
    pub(in super::super) treatment: Treatment,
    pub(in super::super) reason: &'static str,
    pub(super) read: fn(&mut Global, &mut Arguments<'_>) -> Result<(), Fault>,
}

const fn word(
    name: &'static str,
    treatment: Treatment,
    reason: &'static str,
    read: fn(&mut Global, &mut Arguments<'_>) -> Result<(), Fault>,
) -> GlobalWord {
    GlobalWord { name, treatment, reason, read }
}

const fn not(name: &'static str, treatment: Treatment, reason: &'static str) -> GlobalWord {
    word(name, treatment, reason, |_, arguments| {
        arguments.rest();
        Ok(())
    })
}

/// Reads a single value.
fn text(field: &mut Option<String>, arguments: &mut Arguments<'_>) -> Result<(), Fault> {
    *field = Some(arguments.text("a value")?);
    Ok(())
}

const LUA: &str = "sluice does not run Lua; rules that call it are refused or lost";
const STATE: &str = "states of servers are not kept over a restart";

/// The keywords of `global` with their own treatment.
pub(in super::super) const GLOBAL_WORDS: &[GlobalWord] = &[
    word("ca-base", Honoured, "", |global, arguments| text(&mut global.ca_base, arguments)),
    word("chroot", Mapped, "use systemd's sandbox; sluice does not change its root", |global, arguments| {
        text(&mut global.chroot, arguments)
    }),
    word("cpu-map", Mapped, "--cpus and server.cpus", |global, arguments| {
        let pair = (arguments.text("threads")?, arguments.rest().join(" "));
        global.cpu_map.push(pair);
        Ok(())
    }),
    word("crt-base", Honoured, "", |global, arguments| text(&mut global.crt_base, arguments)),
    not("daemon", Ignored, "sluice stays in the foreground, as systemd expects"),
    not("default-path", Lost, "relative paths start at the folder that sluice is started in"),
    not("description", Ignored, "a description"),
    not("external-check", Lost, "sluice does not run programs as checks"),
    word("gid", Mapped, "group of sluice's configuration", |global, arguments| text(&mut global.group, arguments)),
    word("group", Mapped, "group of sluice's configuration", |global, arguments| text(&mut global.group, arguments)),
    word("hard-stop-after", Mapped, "server.drainTimeout", |global, arguments| {
        global.hard_stop_after = Some(arguments.time()?);
        Ok(())
    }),
    word(
        "key-base",
        Mapped,
        "of keys in a crt-store; another key stands beside its certificate",
        |global, arguments| text(&mut global.key_base, arguments),
    ),
    not("localpeer", Ignored, "there are no peers"),
    word("log", Mapped, "server.accessLog; the program's own log goes to the standard error", |global, arguments| {
        global.logs.push(log_target(arguments)?);
        Ok(())
    }),
    not("log-send-hostname", Ignored, "the access log is sluice's own"),
    not("log-tag", Ignored, "the access log is sluice's own"),
    not("lua-load", Lost, LUA),
    not("lua-load-per-thread", Lost, LUA),
    not("lua-prepend-path", Lost, LUA),
    not("master-worker", Ignored, "the supervisor is always there"),
    not("max-spread-checks", Ignored, "checks are spread anyway"),
    not("maxcompcpuusage", Lost, "compression has no limit of its own"),
    not("maxcomprate", Lost, "compression has no limit of its own"),
    word("maxconn", Mapped, "server.maxConnections, of each worker", |global, arguments| {
        global.maxconn = Some(arguments.number("a number of connections")?);
        Ok(())
    }),
    not("maxconnrate", Lost, "new connections are not limited by rate"),
    not("maxsessrate", Lost, "new connections are not limited by rate"),
    not("maxsslconn", Lost, "https.maxHandshakes limits handshakes under way"),
    not("maxsslrate", Lost, "https.maxHandshakes limits handshakes under way"),
    not("nbproc", Ignored, "there is one process with a worker for each processor"),
    word("nbthread", Mapped, "--workers and server.workers", |global, arguments| {
        global.nbthread = Some(arguments.number("a number of threads")?);
        Ok(())
    }),
    not("node", Ignored, "a description"),
    not("pidfile", Ignored, "server.pidFile"),
    not("presetenv", Honoured, ""),
    not("resetenv", Honoured, ""),
    not("server-state-base", Lost, STATE),
    not("server-state-file", Lost, STATE),
    not("set-var", Honoured, ""),
    not("set-var-fmt", Honoured, ""),
    not("setenv", Honoured, ""),
    word("spread-checks", Mapped, "checks are spread over their interval", |global, arguments| {
        global.spread_checks = arguments.number("percent")?;
        Ok(())
    }),
    word("ssl-server-verify", Honoured, "", |global, arguments| {
        let word = arguments.expect("none or required")?;
        global.skips_server_verify = match word.text.as_str() {
            "none" => true,
            "required" => false,
            other => return Err(Fault::new(word.at, format!("{other:?} is neither none nor required"))),
        };
        Ok(())
    }),
    not("stats", Ignored, "there is no command socket; use the admin API"),
    word("uid", Mapped, "user of sluice's configuration", |global, arguments| text(&mut global.user, arguments)),
    not("ulimit-n", Ignored, "sluice sets the limit of descriptors that it needs"),
    not("unix-bind", Lost, "write mode, user and group at each bind line"),
    not("unsetenv", Honoured, ""),
    word("user", Mapped, "user of sluice's configuration", |global, arguments| text(&mut global.user, arguments)),
];

/// The other keywords of `global`: tuning, debugging, devices, and HAProxy's internals. All are ignored.
pub(in super::super) const OTHER_GLOBAL_WORDS: &str = "\
    51degrees-allow-unmatched 51degrees-cache-size 51degrees-data-file 51degrees-difference 51degrees-drift \
    51degrees-property-name-list 51degrees-property-separator 51degrees-use-performance-graph \
    51degrees-use-predictive-graph anonkey busy-polling close-spread-time cluster-secret cpu-affinity cpu-policy \
    cpu-set debug debug.counters deviceatlas-json-file deviceatlas-log-level deviceatlas-properties-cookie \
    deviceatlas-separator dns-accept-family expose-deprecated-directives expose-experimental-directives \
    fd-hard-limit force-cfg-parser-pause grace h1-accept-payload-with-any-method h1-case-adjust \
    h1-case-adjust-file h1-do-not-close-on-insecure-transfer-encoding h2-workaround-bogus-websocket-clients \
    harden.reject-privileged-ports.quic harden.reject-privileged-ports.tcp http-err-codes http-fail-codes \
    httpclient.resolvers.disabled httpclient.resolvers.id httpclient.resolvers.prefer httpclient.retries \
    httpclient.ssl.ca-file httpclient.ssl.verify httpclient.timeout.connect insecure-fork-wanted \
    insecure-setuid-wanted issuers-chain-path jwt.decrypt_alg_list jwt.decrypt_enc_list limited-quic \
    max-threads-per-group maxpipes maxzlibmem mworker-max-reloads mworker-prometheus no-memory-trimming noepoll \
    noevports nogetaddrinfo nokqueue noktls nopoll noreuseport nosplice numa-cpu-mapping ocsp-update.disable \
    ocsp-update.httpproxy ocsp-update.maxdelay ocsp-update.mindelay ocsp-update.mode pp2-never-send-local \
    prealloc-fd profiling.memory profiling.tasks quiet set-dumpable ssl-dh-param-file ssl-engine \
    ssl-load-extra-del-ext ssl-load-extra-files ssl-mode-async ssl-propquery ssl-provider ssl-provider-path \
    ssl-security-level ssl-skip-self-issued-ca stats-file strict-limits thread-group thread-groups \
    tune.applet.zero-copy-forwarding tune.buffers.limit tune.buffers.reserve tune.bufsize tune.bufsize.large \
    tune.bufsize.small tune.chksize tune.cli.max-payload-size tune.comp.maxlevel tune.defaults.purge \
    tune.disable-fast-forward tune.disable-zero-copy-forwarding tune.epoll.mask-events \
    tune.events.max-events-at-once tune.fail-alloc tune.fd.edge-triggered tune.fd.tables \
    tune.h1.be.glitches-threshold tune.h1.fe.glitches-threshold tune.h1.zero-copy-fwd-recv \
    tune.h1.zero-copy-fwd-send tune.h2.be.glitches-threshold tune.h2.be.initial-window-size \
    tune.h2.be.max-concurrent-streams tune.h2.be.max-frames-at-once tune.h2.be.rxbuf \
    tune.h2.fe.glitches-threshold tune.h2.fe.initial-window-size tune.h2.fe.max-concurrent-streams \
    tune.h2.fe.max-frames-at-once tune.h2.fe.max-rst-at-once tune.h2.fe.max-total-streams tune.h2.fe.rxbuf \
    tune.h2.header-table-size tune.h2.initial-window-size tune.h2.max-concurrent-streams tune.h2.max-frame-size \
    tune.h2.zero-copy-fwd-send tune.http.cookielen tune.http.logurilen tune.http.maxhdr tune.idle-pool.shared \
    tune.idletimer tune.listener.multi-queue tune.lua.bool-sample-conversion tune.lua.burst-timeout \
    tune.lua.forced-yield tune.lua.log.loggers tune.lua.log.stderr tune.lua.maxmem tune.lua.openlibs \
    tune.lua.service-timeout tune.lua.session-timeout tune.lua.task-timeout tune.max-checks-per-thread \
    tune.max-rules-at-once tune.maxaccept tune.maxpollevents tune.maxrewrite tune.memory.hot-size \
    tune.pattern.cache-size tune.peers.max-updates-at-once tune.pipesize tune.pool-high-fd-ratio \
    tune.pool-high-ratio tune.pool-low-fd-ratio tune.pool-low-ratio tune.pt.zero-copy-forwarding \
    tune.quic.be.cc.cubic-min-losses tune.quic.be.cc.hystart tune.quic.be.cc.max-frame-loss \
    tune.quic.be.cc.max-win-size tune.quic.be.cc.reorder-ratio tune.quic.be.max-idle-timeout \
    tune.quic.be.sec.glitches-threshold tune.quic.be.stream.data-ratio tune.quic.be.stream.max-concurrent \
    tune.quic.be.stream.rxbuf tune.quic.be.tx.pacing tune.quic.be.tx.udp-gso tune.quic.cc-hystart \
    tune.quic.fe.cc.cubic-min-losses tune.quic.fe.cc.hystart tune.quic.fe.cc.max-frame-loss \
    tune.quic.fe.cc.max-win-size tune.quic.fe.cc.reorder-ratio tune.quic.fe.max-idle-timeout \
    tune.quic.fe.sec.glitches-threshold tune.quic.fe.sec.retry-threshold tune.quic.fe.sock-per-conn \
    tune.quic.fe.stream.data-ratio tune.quic.fe.stream.max-concurrent tune.quic.fe.stream.max-total \
    tune.quic.fe.stream.rxbuf tune.quic.fe.tx.pacing tune.quic.fe.tx.udp-gso \
    tune.quic.frontend.conn-tx-buffers.limit tune.quic.frontend.max-idle-timeout \
    tune.quic.frontend.max-streams-bidi tune.quic.listen tune.quic.max-frame-loss tune.quic.mem.tx-max \
    tune.quic.reorder-ratio tune.quic.retry-threshold tune.quic.socket-owner tune.quic.zero-copy-fwd-send \
    tune.rcvbuf.backend tune.rcvbuf.client tune.rcvbuf.frontend tune.rcvbuf.server tune.recv_enough \
    tune.renice.runtime tune.renice.startup tune.ring.queues tune.runqueue-depth tune.sched.low-latency \
    tune.sndbuf.backend tune.sndbuf.client tune.sndbuf.frontend tune.sndbuf.server tune.ssl.cachesize \
    tune.ssl.capture-buffer-size tune.ssl.capture-cipherlist-size tune.ssl.certificate-compression \
    tune.ssl.default-dh-param tune.ssl.force-private-cache tune.ssl.hard-maxrecord tune.ssl.keylog \
    tune.ssl.keyupdate-rate-limit tune.ssl.lifetime tune.ssl.maxrecord tune.ssl.ocsp-update.maxdelay \
    tune.ssl.ocsp-update.mindelay tune.ssl.ssl-ctx-cache-size tune.stick-counters tune.streams-elasticity \
    tune.takeover-other-tg-connections tune.vars.check-max-size tune.vars.global-max-size \
    tune.vars.proc-max-size tune.vars.reqres-max-size tune.vars.sess-max-size tune.vars.session-max-size \
    tune.vars.txn-max-size tune.zlib.memlevel tune.zlib.windowsize warn-blocked-traffic-after wurfl-cache-size \
    wurfl-data-file wurfl-information-list wurfl-information-list-separator zero-warning";

/// Reads `ssl-default-bind-…` and `ssl-default-server-…`; false for any other keyword.
pub(super) fn tls_default(global: &mut Global, name: &str, arguments: &mut Arguments<'_>) -> bool {
    let (name, defaults) = match (name.strip_prefix("ssl-default-bind-"), name.strip_prefix("ssl-default-server-")) {
        (Some(name), _) => (name, &mut global.tls_bind_defaults),
        (_, Some(name)) => (name, &mut global.tls_server_defaults),
        _ => return false,
    };
    let is_known = ["ciphers", "ciphersuites", "client-sigalgs", "curves", "options", "sigalgs"].contains(&name);
    if is_known {
        defaults.insert(name.to_owned(), arguments.rest().join(" "));
    }
    is_known
}
