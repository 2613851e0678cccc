//! Malformed responses, with and without the option `lenient`.

use super::Admin;
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::until;

/// Host, response, counter, and what the log says of the head where it is refused.
const RESPONSES: [(&str, &str, &str, &str); 4] = [
    (
        "lf.test",
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        "bare_lf",
        "byte 15 of the response: a line ends in LF without CR",
    ),
    (
        "fold.test",
        "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 5\r\n\r\nhello",
        "folded_line",
        "byte 23 of the response: a folded line",
    ),
    (
        "twice.test",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "repeated_length",
        "byte 36 of the response: a second length in Content-Length",
    ),
    (
        "both.test",
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "length_beside_chunked",
        "byte 36 of the response: a length beside chunked in Transfer-Encoding",
    ),
];

#[test]
fn a_lenient_frontend_reads_what_others_refuse_and_each_use_is_counted() {
    let backends = RESPONSES.map(|(_, response, ..)| Backend::always(response));
    let setup = RESPONSES.iter().zip(&backends).fold(Setup::new(), |setup, ((host, ..), backend)| {
        let lenient = format!("lenient.{host}");
        setup.route(host, [backend.url()]).route(&lenient, [backend.url()]).option(&lenient, "lenient", true)
    });
    let admin = Admin::start(setup);
    for (host, _, counter, fault) in RESPONSES {
        let mut client = admin.proxy.client();
        for _ in 0..2 {
            client.get(&format!("lenient.{host}"), "/").expect_ok("hello");
        }
        assert_eq!(client.get(host, "/").status(), 502, "{host}");
        // The folded line and the like of a client are refused everywhere.
        let request = format!("GET / HTTP/1.1\r\nHost: lenient.{host}\r\nX: 1\r\n 2\r\n\r\n");
        assert_eq!(admin.proxy.client().exchange(request).status(), 400, "{host}");
        until("the uses are counted", || {
            admin.get("/metrics").text().contains(&format!("\nsluice_lenient_{counter}_total 2\n"))
        });
        let line = format!("{host}: a request failed at backend");
        until("the fault is logged", || {
            let log = admin.proxy.stderr();
            log.lines().any(|logged| logged.contains(&line) && logged.contains(fault))
        });
    }
}
