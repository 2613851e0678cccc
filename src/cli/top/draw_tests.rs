//! The frame on terminals of several sizes.

use super::draw::draw;
use super::feed::News;
use super::model::Model;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

fn tell(model: &mut Model, name: &str, data: Value) {
    model.on_news(News::Event(name.to_owned(), data));
}

fn press(model: &mut Model, code: KeyCode) {
    model.on_key(KeyEvent::new(code, KeyModifiers::NONE));
}

/// The lines of a terminal of this size.
fn picture(model: &mut Model, (width, height): (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame, model)).expect("a picture");
    let buffer = terminal.backend().buffer();
    let line = |row: u16| (0..width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..height).map(|row| line(row).trim_end().to_owned()).collect()
}

/// A node with a host whose second backend is dead.
fn node() -> Model {
    let mut model = Model::default();
    let status = |uptime: u64, requests: u64, refused: u64| {
        json!({
            "version": "1.2.3", "pid": 7, "uptime_seconds": uptime, "ready": true, "reason": null,
            "totals": { "requests": requests }, "failures": { "connect_refused": refused }, "resident_bytes": 64 << 20,
            "latency": { "total": { "p50": 0.0002, "p99": 0.0125 } },
            "workers": [
                { "worker": 0, "connections": 12, "requests_in_flight": 3, "memory_bytes": 5 << 20, "busy_seconds": uptime / 2 },
                { "worker": 1, "connections": 8, "requests_in_flight": 0, "memory_bytes": 4 << 20, "draining": true },
            ],
        })
    };
    tell(&mut model, "status", status(100, 1000, 4));
    tell(&mut model, "status", status(102, 1500, 9));
    tell(&mut model, "source", json!({ "redis": { "kind": "redis", "age_seconds": 75.0 } }));
    let host = |key: &str, state: &str, up: u64, waiting: u64| {
        json!({ "key": key, "state": state, "up": up, "backends_total": 2, "in_flight": 3, "waiting": waiting,
                "requests_60s": 900, "failures_60s": 5 })
    };
    let hosts = [host("shop.example.com", "degraded", 1, 17), host("evil\u{1b}[31m.test", "up", 2, 0)];
    tell(&mut model, "frontends", json!({ "total": 100_000, "frontends": hosts }));
    model
}

#[test]
fn a_node_is_seen_at_a_glance() {
    let lines = picture(&mut node(), (100, 24));
    let text = lines.join("\n");
    assert_eq!(lines[0], "sluice 1.2.3  ✓ ready  up 1 min 42 s  process 7  routes from redis, away for 1 min 15 s");
    assert_eq!(
        lines[1],
        "250 requests/s  2.5 failed/s  3 in flight  17 waiting  20 clients  50 % 200 µs  99 % 12.5 ms  64 MiB"
    );
    for expected in [
        "0      12       3         50 %   5      serves",
        "drains",
        "connect_refused",
        "100000 hosts, 2 shown, by requests",
        "> shop.example.com",
        "▲ 1 / 2",
        "● 2 / 2",
        "Enter backends",
    ] {
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "a name from outside controls no terminal");
}

#[test]
fn the_backends_of_a_host_say_why_they_do_not_serve() {
    let mut model = node();
    press(&mut model, KeyCode::Enter);
    assert!(picture(&mut model, (120, 24)).join("\n").contains("asking the node"));
    let backends = json!([
        { "url": "http://10.0.0.1:80", "state": "up", "in_flight": 3, "failures": 0 },
        { "url": "http://10.0.0.2:80", "state": "dead", "reason": "it cannot be reached", "seconds_left": 26.4, "failures": 9 },
    ]);
    tell(&mut model, "frontend", json!({ "asked": "other.test", "view": { "backends": [] } }));
    tell(&mut model, "frontend", json!({ "asked": "shop.example.com", "view": { "backends": backends } }));
    let text = picture(&mut model, (120, 24)).join("\n");
    assert!(text.contains("Backends of shop.example.com") && text.contains("● up"), "{text}");
    let row = text.lines().find(|line| line.contains("10.0.0.2")).expect("a row");
    assert!(row.contains("✕ dead") && row.contains("it cannot be reached, for another 26 s"), "{row}");
    tell(&mut model, "frontend", json!({ "asked": "shop.example.com", "view": null, "detail": "not in use" }));
    assert!(picture(&mut model, (120, 24)).join("\n").contains("not in use"));
}

#[test]
fn every_size_has_a_picture_and_one_that_is_too_small_says_so() {
    let mut model = node();
    press(&mut model, KeyCode::Enter);
    press(&mut model, KeyCode::Char('/'));
    press(&mut model, KeyCode::Char('x'));
    for width in [1, 10, 63, 64, 80, 250] {
        for height in [1, 5, 13, 14, 24, 70] {
            let lines = picture(&mut model, (width, height));
            let text = lines.join(" ");
            if width < 64 || height < 14 {
                assert!(text.starts_with('T') && !text.contains("sluice 1.2.3"), "{width} × {height}: {lines:#?}");
            } else {
                assert!(text.contains("search: x▏"), "{width} × {height}: {lines:#?}");
            }
        }
    }
    assert!(picture(&mut model, (40, 10)).join(" ").contains("needs 64 and 14"));
}

#[test]
fn a_node_that_is_away_is_told_beside_what_was_known() {
    let mut model = Model::default();
    assert!(picture(&mut model, (80, 20))[0].contains("asking the node"));
    let mut model = node();
    model.on_news(News::Problem("connection refused".to_owned()));
    let lines = picture(&mut model, (100, 24));
    assert!(lines[0].contains("✕ no news: connection refused"), "{}", lines[0]);
    assert!(lines.join("\n").contains("shop.example.com"));
    tell(&mut model, "status", json!({ "version": "1.2.3", "reason": "draining" }));
    assert!(picture(&mut model, (100, 24))[0].contains("✕ draining"));
}
