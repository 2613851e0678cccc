//! `stats` of HAProxy files: the page of a frontend, and the CSV behind `;csv`. The rules of the frontend have checked
//! access before.

use super::marks::MarkIndex;
use super::stats_csv::{
    ACT, BCK, ERESP, HEADER, MAX_BYTES, QCUR, RATE, Row, SCUR, SLIM, STATUS, STOT, WEIGHT, backend_row, frontend_row,
    member_row, plain,
};
use super::{Response, Service};
use crate::base::clock::Moment;
use crate::haproxy::serve::{StatisticsPage, StatisticsProxy};
use std::fmt::Write;

/// The columns of the page.
const COLUMNS: [(&str, usize); 10] = [
    ("Queue", QCUR),
    ("Session rate", RATE),
    ("Sessions", SCUR),
    ("Limit", SLIM),
    ("Total", STOT),
    ("Errors", ERESP),
    ("Status", STATUS),
    ("Weight", WEIGHT),
    ("Active", ACT),
    ("Backup", BCK),
];

/// The page has no script and loads nothing.
const POLICY: &str = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:14px sans-serif;margin:1em}table{border-collapse:collapse;margin:0 0 1.5em}\
    caption{text-align:left;font-weight:bold;padding:.3em 0}th,td{border:1px solid #999;padding:.2em .6em;text-align:right}\
    th:first-child,td:first-child{text-align:left}tr.DOWN{background:#fbb}tr.MAINT{background:#fd8}tr.UP{background:#cfc}";

/// The page, or the CSV.
pub(super) fn page(page: &StatisticsPage, service: &Service) -> Response {
    let now = service.clock.now();
    let mut response = match page.is_csv {
        true => Response::new(200, "text/plain", csv(page, now)),
        false => Response::new(200, "text/html; charset=utf-8", html(page, now)).with_field(POLICY),
    };
    if let Some(refresh) = page.refresh {
        response = response.with_field(&format!("Refresh: {}", refresh.as_secs().max(1)));
    }
    response
}

fn csv(page: &StatisticsPage, now: Moment) -> Vec<u8> {
    let mut text = HEADER.as_bytes().to_vec();
    for proxy in page.proxies() {
        if text.len() > MAX_BYTES {
            break;
        }
        let name = plain(proxy.name());
        each_row(&proxy, now, |server, row| row.put(&mut text, &name, &plain(server)));
    }
    text
}

fn html(page: &StatisticsPage, now: Moment) -> String {
    let version = if page.hides_version { "" } else { concat!(" ", env!("CARGO_PKG_VERSION")) };
    let mut text = format!(
        "<!DOCTYPE html>\n<html><head><title>Statistics Report for sluice{version}</title><style>{STYLE}</style></head>\n\
         <body><h1>sluice{version}: statistics</h1>\n"
    );
    for proxy in page.proxies() {
        if text.len() > MAX_BYTES {
            break;
        }
        let _ = write!(text, "<table><caption>{}</caption>\n<tr><th></th>", escaped(proxy.name()));
        COLUMNS.iter().for_each(|(title, _)| text.extend(["<th>", title, "</th>"]));
        text.push_str("</tr>\n");
        each_row(&proxy, now, |server, row| {
            let _ = write!(text, "<tr class=\"{}\"><td>{}</td>", row.text(STATUS), escaped(server));
            COLUMNS.iter().for_each(|(_, column)| text.extend(["<td>", &row.text(*column), "</td>"]));
            text.push_str("</tr>\n");
        });
        text.push_str("</table>\n");
    }
    text.push_str("</body></html>\n");
    text
}

/// The rows of a proxy in HAProxy's order: FRONTEND, servers, BACKEND.
fn each_row(proxy: &StatisticsProxy<'_>, now: Moment, mut put: impl FnMut(&str, &Row)) {
    let number = proxy.number() as u64;
    if let Some((load, limit)) = proxy.frontend() {
        put("FRONTEND", &frontend_row((load.current(), load.total()), limit, number));
    }
    let Some(route) = proxy.route() else { return };
    let marks = MarkIndex::marks_of(route, now);
    for (place, member) in route.cluster.members.iter().enumerate() {
        put(proxy.server(place).unwrap_or_default(), &member_row((member, place), &marks, (number, now)));
    }
    put("BACKEND", &backend_row(&route.cluster, &marks, (number, now)));
}

/// A name escaped for HTML.
fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
