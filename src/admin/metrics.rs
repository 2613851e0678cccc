//! Metrics, in OpenMetrics text or the older Prometheus text format.

use super::clusters::{Load, load_of, up_of};
use super::marks::MarkIndex;
use super::roster::ReplaceCause;
use super::series::{Choice, OTHER};
use super::worker_series::WorkerSeries;
use super::{Response, Service, process, status, views, worker_series};
use crate::base::clock::Moment;
use crate::base::counters::{Counter, Counters, STATUS_CLASSES};
use crate::base::histogram::Phase;
use crate::base::reason::FailureReason;
use crate::cache::store::Store;
use crate::cache::tier::TierCounts;
use crate::shaper::BucketView;
use crate::worker::ResourceUsage;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The greatest number of buckets with their own series, over all clusters with series.
const MAX_BUCKETS: usize = 1000;

/// The prefix of the type of OpenMetrics text, searched in `Accept`.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// The metrics, in the format that the client accepts.
pub(super) fn metrics(accept: Option<&[u8]>, service: &Service) -> Response {
    let mut registry = Registry::with_prefix("sluice");
    registry.register_collector(Box::new(Snapshot::of(service)));
    let accepts_open = accept.is_some_and(|accept| String::from_utf8_lossy(accept).contains(OPEN_METRICS));
    let mut body = String::new();
    let (encoded, content_type) = if accepts_open {
        (text::encode(&mut body, &registry), "application/openmetrics-text; version=1.0.0; charset=utf-8")
    } else {
        (prometheus_text::encode(&mut body, &registry), "text/plain; version=0.0.4; charset=utf-8")
    };
    // Writing to a string cannot fail.
    debug_assert!(encoded.is_ok(), "the metrics could not be written");
    Response::new(200, content_type, body)
}

/// All values at one moment.
#[derive(Debug)]
struct Snapshot {
    totals: Counters,
    workers: Vec<WorkerSeries>,
    /// The time for which the loops of each slot have worked.
    busy: BTreeMap<usize, Duration>,
    clusters: Clusters,
    /// The tenants of the node, where requests in flight are shared by them.
    tenants: Vec<BucketView>,
    refusals: u64,
    /// Open event streams, and gatherings for them.
    events: (usize, u64),
    is_ready: bool,
    uptime: Duration,
    lost_log_lines: u64,
    replaced_workers: Vec<(ReplaceCause, u64)>,
    source_mode: &'static str,
    source_losses: u64,
    source_held: u64,
    source_age: Duration,
    resident_bytes: Option<u64>,
    open_files: Option<u64>,
    cache: Option<Arc<Store>>,
    /// Number of certificates in use, and the time of the first expiry in seconds since 1970.
    certificates: (usize, Option<f64>),
}

impl Snapshot {
    fn of(service: &Service) -> Self {
        let (roster, now, source) = (&service.roster, service.clock.now(), service.directory.status());
        let (workers, past) = roster.workers_and_past();
        Self {
            totals: roster.totals(),
            busy: worker_series::busy(&workers, &past),
            workers: WorkerSeries::of(&workers),
            clusters: Clusters::of(service, now),
            tenants: service.tenants.as_ref().map_or_else(Vec::new, |tenants| tenants.views()),
            refusals: service.state.refusals(),
            events: service.state.events(),
            is_ready: status::unready(service).is_none(),
            uptime: now.since(roster.started()),
            lost_log_lines: roster.lost_log_lines(),
            replaced_workers: roster.replaced().collect(),
            source_mode: status::source_mode(source),
            source_losses: source.losses(),
            source_held: source.held(),
            source_age: source.age(now),
            resident_bytes: process::resident_bytes(),
            open_files: service.state.open_files(now, process::open_files),
            cache: service.cache.clone(),
            certificates: views::certificate_ends(service),
        }
    }
}

/// The clusters with their own series, and the sum of all others.
#[derive(Debug)]
struct Clusters {
    count: u64,
    /// Each with the number of its backends that may serve.
    named: Vec<(String, Load, u64)>,
    others: Option<Load>,
    /// The buckets of clusters that have any.
    buckets: Vec<(String, Vec<BucketView>)>,
}

impl Clusters {
    fn of(service: &Service, now: Moment) -> Self {
        let choice = service.state.series().choice(service.clock, || service.directory.clusters());
        let Choice { named: chosen, others, count, .. } = choice;
        let mut index = MarkIndex::new(&service.sources, now);
        let named = chosen.iter().map(|cluster| {
            let up = up_of(cluster, &index.marks(cluster));
            (cluster.key.to_string(), load_of(cluster), up)
        });
        let shared = chosen.iter().filter(|cluster| cluster.has_buckets());
        let buckets = shared.map(|cluster| (cluster.key.to_string(), cluster.buckets())).collect();
        Self { count, named: named.collect(), others, buckets }
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut out = Out(encoder);
        self.put_process(&mut out)?;
        self.put_requests(&mut out)?;
        self.put_workers(&mut out)?;
        self.put_source(&mut out)?;
        self.put_cache(&mut out)?;
        self.put_clusters(&mut out)?;
        self.put_buckets(&mut out)
    }
}

impl Snapshot {
    fn put_process(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        out.gauges("build_info", "The version of sluice; always 1.", None, [(version, 1_i64)])?;
        out.gauge("ready", "Whether the process is ready for requests (1) or not (0).", self.is_ready.into())?;
        let uptime = [(NONE, self.uptime.as_secs_f64())];
        out.gauges("uptime", "Uptime of the process.", Some(&Unit::Seconds), uptime)?;
        out.counter("log_lost_lines", "Lines of the access log that were lost.", self.lost_log_lines)?;
        let replaced = self.replaced_workers.iter().map(|(cause, count)| ([("cause", cause.name())], *count));
        out.counters("replaced_workers", "Workers that a successor has replaced.", replaced)?;
        out.counter("admin_refusals", "Requests to the admin service refused for lack of access.", self.refusals)?;
        let (streams, gatherings) = self.events;
        out.gauge("admin_event_streams", "Streams of /v1/events that are open.", streams as i64)?;
        out.counter("admin_event_gatherings", "Gatherings for all streams of /v1/events together.", gatherings)?;
        if let Some(bytes) = self.resident_bytes {
            let bytes = [(NONE, signed(bytes))];
            out.gauges("resident_memory", "Resident memory of the process.", Some(&Unit::Bytes), bytes)?;
        }
        let (certificates, first_end) = self.certificates;
        out.gauge("certificates", "Certificates in use.", signed(certificates as u64))?;
        if let Some(end) = first_end {
            let help = "First expiry of a certificate in use, in seconds since 1970.";
            out.gauges("certificate_first_expiry_timestamp", help, Some(&Unit::Seconds), [(NONE, end)])?;
        }
        self.open_files.map_or(Ok(()), |count| out.gauge("open_files", "Open files of the process.", signed(count)))
    }

    fn put_requests(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let classes = STATUS_CLASSES.map(|(class, counter)| ([("class", class)], self.totals.get(counter)));
        out.counters("responses", "Requests that ended, by the class of the status that the client got.", classes)?;
        let reasons = FailureReason::ALL.iter();
        let reasons = reasons.map(|reason| ([("reason", reason.name())], self.totals.get_reason(*reason)));
        out.counters("failures", "Requests that ended without a complete response of a backend.", reasons)?;
        for counter in Counter::ALL.iter().filter(|counter| !STATUS_CLASSES.iter().any(|(_, class)| class == *counter))
        {
            out.counter(counter.name(), counter.help().trim().trim_end_matches('.'), self.totals.get(*counter))?;
        }
        let help = "Time of requests, by phase.";
        let mut family = out.0.encode_descriptor("request_phase", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for phase in Phase::ALL {
            let histogram = self.totals.latency(phase);
            let mut buckets: Vec<(f64, u64)> = histogram.by_powers().collect();
            let (count, known) = (histogram.count(), buckets.iter().map(|(_, count)| count).sum());
            buckets.push((f64::INFINITY, count.saturating_sub(known)));
            let labels = [("phase", phase.name())];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(histogram.sum_seconds(), count, &buckets, None)?;
        }
        Ok(())
    }

    fn put_workers(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let each = |read: fn(&ResourceUsage) -> u64| {
            self.workers.iter().map(move |series| ([("worker", series.label.clone())], signed(series.sum(read))))
        };
        let connections = each(|usage| usage.clients);
        out.gauges("client_connections", "Open connections of clients.", None, connections)?;
        let requests = each(|usage| usage.requests);
        out.gauges("requests_in_flight", "Requests and tunnels in progress.", None, requests)?;
        out.gauges("open_tunnels", "Open tunnels.", None, each(|usage| usage.tunnels))?;
        let upstreams = each(|usage| usage.upstreams);
        out.gauges("upstream_connections", "Open connections to backends.", None, upstreams)?;
        let help = "Connections to backends that are idle in the pool.";
        out.gauges("upstream_idle_connections", help, None, each(|usage| usage.idle_upstreams))?;
        let help = "Hosts in the cache of routes, known or unknown.";
        out.gauges("route_cache_entries", help, None, each(|usage| usage.routes))?;
        let bytes = each(|usage| usage.bytes);
        out.gauges("worker_memory", "Approximate memory of the worker.", Some(&Unit::Bytes), bytes)?;
        let draining = self.workers.iter().map(|series| ([("worker", series.label.clone())], signed(series.draining)));
        out.gauges("worker_draining", "Number of workers of this label that drain.", None, draining)?;
        let busy = self.busy.iter().map(|(number, busy)| ([("worker", number.to_string())], busy.as_secs_f64()));
        let help = "Time that the loops of a slot's workers have worked.";
        out.seconds("worker_busy", help, busy)?;
        let label = |series: &WorkerSeries| [("worker", series.label.clone())];
        let longest = self.workers.iter().map(|series| (label(series), series.longest_turn().as_secs_f64()));
        let help = "The longest turn of the loop in the last interval.";
        out.gauges("worker_longest_turn", help, Some(&Unit::Seconds), longest)
    }

    fn put_source(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let mode = [([("mode", self.source_mode)], 1_i64)];
        out.gauges("route_source_mode", "How changes of routes are noticed; always 1.", None, mode)?;
        out.counter("route_source_losses", "Times that the source of routes was lost.", self.source_losses)?;
        let help = "Hosts that stayed in service although the source came back without them.";
        out.counter("route_source_held_hosts", help, self.source_held)?;
        let age = [(NONE, self.source_age.as_secs_f64())];
        out.gauges("route_table_age", "Time for which the source of routes has been away.", Some(&Unit::Seconds), age)
    }

    fn put_cache(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let Some(store) = &self.cache else { return Ok(()) };
        out.gauge("cache_keys", "Keys in the object cache.", signed(store.len() as u64))?;
        let fills = signed(store.fills().under_way() as u64);
        out.gauge("cache_fills_in_flight", "Cache fills that other requests wait for.", fills)?;
        for (name, help, bytes) in [
            ("cache_stored", "Memory of the objects in the cache.", store.bytes()),
            ("cache_capacity", "Memory limit of the objects in the cache.", store.capacity()),
            ("cache_memory", "Memory of the objects in the cache, being filled, or still being sent.", store.memory()),
        ] {
            out.gauges(name, help, Some(&Unit::Bytes), [(NONE, signed(bytes))])?;
        }
        store.tier().map_or(Ok(()), |tier| put_tier(&tier.counts, out))
    }

    fn put_clusters(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let clusters = &self.clusters;
        out.gauge("clusters", "Clusters in use.", signed(clusters.count))?;
        let each = |read: fn(&Load) -> u64| {
            let named = clusters.named.iter().map(|(key, load, _)| (key.as_str(), load));
            let all = named.chain(clusters.others.as_ref().map(|load| (OTHER, load)));
            all.map(move |(key, load)| ([("cluster", key)], read(load)))
        };
        let help = "Requests of the cluster that ended.";
        out.counters("cluster_requests", help, each(|load| load.requests))?;
        out.counters("cluster_failures", "Requests of the cluster that failed.", each(|load| load.failures))?;
        out.counters("cluster_queued", "Requests that waited for a slot.", each(|load| load.queued))?;
        out.counters("cluster_dropped", "Requests that were refused for a full queue.", each(|load| load.dropped))?;
        let gauge = |read| each(read).map(|(labels, value)| (labels, signed(value)));
        out.gauges("cluster_in_flight", "Requests that hold a slot.", None, gauge(|load| load.in_flight))?;
        out.gauges("cluster_waiting", "Requests that wait for a slot.", None, gauge(|load| load.waiting))?;
        out.gauges("cluster_backends", "Backends of the cluster.", None, gauge(|load| load.members))?;
        let up = clusters.named.iter().map(|(key, _, up)| ([("cluster", key.as_str())], signed(*up)));
        out.gauges("cluster_backends_up", "Backends of the cluster that may serve.", None, up)
    }

    fn put_buckets(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let of_cluster = |(key, views): &(String, Vec<BucketView>)| {
            let labels = |view: &BucketView| vec![("cluster", key.clone()), ("bucket", view.name.clone())];
            views.iter().map(|view| (labels(view), view.clone())).collect::<Vec<_>>()
        };
        let buckets: Vec<_> = self.clusters.buckets.iter().flat_map(of_cluster).take(MAX_BUCKETS).collect();
        put_tree(out, "bucket", &buckets)?;
        let of_tenant = |view: &BucketView| (vec![("tenant", view.name.clone())], view.clone());
        put_tree(out, "tenant", &self.tenants.iter().map(of_tenant).collect::<Vec<_>>())
    }
}

fn put_tier(counts: &TierCounts, out: &mut Out<'_>) -> Result<(), Error> {
    let [bytes, files] = [&counts.bytes, &counts.files].map(|count| signed(count.load(Relaxed)));
    let help = "What the files of the object cache take.";
    out.gauges("cache_disk", help, Some(&Unit::Bytes), [(NONE, bytes)])?;
    out.gauge("cache_disk_files", "Files of the object cache.", files)?;
    let help = "1 once the disk has refused a file of the object cache: nothing more is written.";
    out.gauge("cache_disk_failed", help, signed(counts.failed.load(Relaxed)))?;
    let help = "Files of removed objects that could not be removed.";
    out.gauge("cache_disk_leftovers", help, signed(counts.leftovers.load(Relaxed)))?;
    for (name, help, count) in [
        ("cache_disk_hits", "Objects read from files.", &counts.hits),
        ("cache_disk_written", "Objects written to files.", &counts.written),
        ("cache_disk_skipped", "Objects not written, as too many waited to be.", &counts.skipped),
        ("cache_disk_evicted", "Files removed to make room.", &counts.evicted),
        ("cache_disk_corrupt", "Files that were not what had been written, and were removed.", &counts.corrupt),
    ] {
        out.counter(name, help, count.load(Relaxed))?;
    }
    Ok(())
}

/// Writes the series of buckets, or tenants, with their labels.
fn put_tree(out: &mut Out<'_>, kind: &str, views: &[(Vec<(&str, String)>, BucketView)]) -> Result<(), Error> {
    let each = |read: fn(&BucketView) -> u64| views.iter().map(move |(labels, view)| (labels.clone(), read(view)));
    let gauge = |read| each(read).map(|(labels, value)| (labels, signed(value)));
    let name = |series: &str| format!("{kind}_{series}");
    out.gauges(&name("rate"), "Assured tokens.", None, gauge(|view| view.rate.into()))?;
    out.gauges(&name("ceil"), "The greatest number of tokens.", None, gauge(|view| view.ceil.into()))?;
    out.gauges(&name("in_flight"), "Tokens in use.", None, gauge(|view| view.held.into()))?;
    out.gauges(&name("waiting"), "Requests that wait for a token.", None, gauge(|view| view.queued.into()))?;
    out.counters(&name("tokens"), "Tokens that requests took.", each(|view| view.taken))?;
    out.counters(&name("queued"), "Requests that waited for a token.", each(|view| view.queued_total))?;
    let help = "Requests that found no place in the queue, or waited for too long.";
    out.counters(&name("dropped"), help, each(super::buckets::dropped))?;
    let micros = each(|view| u64::try_from(view.waited.as_micros()).unwrap_or(u64::MAX));
    let waited = micros.map(|(labels, micros)| (labels, Duration::from_micros(micros).as_secs_f64()));
    out.seconds(&name("waited"), "The time that these waits took, of those that ended with a token.", waited)
}

/// No labels.
const NONE: [(&str, &str); 0] = [];

/// The output of metrics.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.counters(name, help, [(NONE, value)])
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) -> Result<(), Error> {
        self.gauges(name, help, None, [(NONE, value)])
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help.trim_end_matches('.'), None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A counter of time.
    fn seconds<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> Result<(), Error> {
        let help = help.trim_end_matches('.');
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges<L: EncodeLabelSet, V>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> Result<(), Error>
    where
        ConstGauge<V>: EncodeMetric,
    {
        let mut family = self.0.encode_descriptor(name, help.trim_end_matches('.'), unit, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
