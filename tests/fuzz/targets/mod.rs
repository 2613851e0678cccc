//! One function a target: it takes any bytes, and panics where something does not hold.

mod chunked;
mod differential;
mod exchange;
mod haproxy_config;
mod heads;
mod hyper_reads;
mod proxy_header;
mod texts;

/// The name of a target and of its corpus, and what plays it.
type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: &[Target] = &[
    ("request_head", heads::request),
    ("response_head", heads::response),
    ("chunked", chunked::run),
    ("differential_request", differential::request),
    ("differential_response", differential::response),
    ("exchange", exchange::run),
    ("proxy_header", proxy_header::run),
    ("routes_file", texts::routes_file),
    ("config_file", texts::config_file),
    ("redis_records", texts::redis_records),
    ("snapshot", texts::snapshot),
    ("haproxy_config", haproxy_config::run),
];

/// Where an input is cut: everywhere if it is short, else at places that the input itself decides.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    let step = (len / 60).max(1);
    (0..len).step_by(step).chain(len.saturating_sub(8)..len)
}

/// Sizes of pieces, without end, the same for the same input.
fn pieces(bytes: &[u8]) -> impl FnMut() -> usize {
    let seed = bytes.iter().fold(bytes.len() as u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let mut rng = fastrand::Rng::with_seed(seed);
    let largest = [1, 2, 5, 40, 2000][rng.usize(..5)];
    move || rng.usize(1..=largest)
}
