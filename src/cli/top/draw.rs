//! The frame: the node, its workers and failures, its hosts, and the backends of one host. Each state has a sign besides its
//! colour.

use super::model::{Model, SORTS};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, TableState, Wrap};
use serde_json::Value;
use std::time::Duration;

/// The smallest terminal: columns and rows.
const LEAST: (u16, u16) = (64, 14);

/// The greatest number of rows of workers, and of failures.
const MAX_FACTS: usize = 6;

pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "This terminal has {} columns and {} rows; sluice top needs {} and {}. q ends it.",
            area.width, area.height, LEAST.0, LEAST.1
        );
        return frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
    }
    let facts = facts_height(model, area.height);
    let opened = if model.open.is_some() { backends_height(model, area.height) } else { 0 };
    let heights = [2, facts, 0, opened, 1].map(Constraint::Length);
    let [head, middle, _, backends, keys] = heights;
    let [head, middle, hosts, backends, keys] =
        Layout::vertical([head, middle, Constraint::Min(3), backends, keys]).areas(area);
    frame.render_widget(Paragraph::new(vec![first_line(model), second_line(model)]), head);
    let [workers, failures] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(middle);
    frame.render_widget(workers_table(model), workers);
    frame.render_widget(failures_table(model), failures);
    draw_hosts(frame, model, hosts);
    if opened > 0 {
        draw_backends(frame, model, backends);
    }
    frame.render_widget(Paragraph::new(keys_line(model)), keys);
}

fn facts_height(model: &Model, height: u16) -> u16 {
    let workers = model.status["workers"].as_array().map_or(0, Vec::len);
    let rows = workers.clamp(1, MAX_FACTS).min(usize::from(height / 4));
    u16::try_from(rows).unwrap_or(1) + 2
}

fn backends_height(model: &Model, height: u16) -> u16 {
    let rows = model.opened.as_ref().and_then(|opened| opened["view"]["backends"].as_array()).map_or(1, Vec::len);
    (u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(3)).min(height / 3)
}

fn first_line(model: &Model) -> Line<'_> {
    let status = &model.status;
    let mut spans = vec!["sluice ".bold(), Span::raw(text(&status["version"])), Span::raw("  ")];
    match (&model.problem, status["reason"].as_str()) {
        (Some(problem), _) => spans.push(format!("✕ no news: {problem}").red().bold()),
        (None, Some(reason)) => spans.push(format!("✕ {reason}").red().bold()),
        (None, None) if status.is_null() => spans.push("asking the node".dim()),
        (None, None) => spans.push("✓ ready".green().bold()),
    }
    if !status.is_null() && model.problem.is_none() {
        let up = span(status["uptime_seconds"].as_f64().unwrap_or_default());
        spans.push(format!("  up {up}  process {}", number(&status["pid"])).dim());
        let kind = text(&model.source["redis"]["kind"]);
        let age = model.source["redis"]["age_seconds"].as_f64().filter(|age| *age > 0.0);
        spans.push(format!("  routes from {kind}").dim());
        spans.extend(age.map(|age| format!(", away for {}", span(age)).red()));
    }
    Line::from(spans)
}

fn second_line(model: &Model) -> Line<'_> {
    let status = &model.status;
    let requests = model.rate(|status| status["totals"]["requests"].as_f64().unwrap_or_default());
    let failures = model.rate(all_failures);
    let sum = |name: &str| rows(&status["workers"]).map(|worker| number(&worker[name])).sum::<u64>();
    let waiting: u64 = model.rows().iter().map(|row| number(&row["waiting"])).sum();
    let latency = &status["latency"]["total"];
    let is_failing = failures.is_some_and(|rate| rate > 0.0);
    let failed = format!("{} failed/s", rate(failures));
    let waits = format!("{waiting} waiting");
    Line::from(vec![
        format!("{} requests/s", rate(requests)).bold(),
        "  ".into(),
        if is_failing { failed.red().bold() } else { failed.into() },
        format!("  {} in flight  ", sum("requests_in_flight")).into(),
        if waiting > 0 { waits.yellow().bold() } else { waits.into() },
        format!("  {} clients  ", sum("connections")).into(),
        format!("50 % {}  99 % {}  ", seconds(&latency["p50"]), seconds(&latency["p99"])).into(),
        format!("{} MiB", number(&status["resident_bytes"]) >> 20).into(),
    ])
}

fn workers_table(model: &Model) -> Table<'_> {
    let worker_rows = rows(&model.status["workers"]).map(|worker| {
        let busy = model.rate(|status| busy_of(status, &worker["worker"]));
        let state = if worker["draining"] == true { "drains" } else { "serves" };
        Row::new([
            number(&worker["worker"]).to_string(),
            number(&worker["connections"]).to_string(),
            number(&worker["requests_in_flight"]).to_string(),
            busy.map_or_else(|| "-".to_owned(), |busy| format!("{:.0} %", 100.0 * busy)),
            (number(&worker["memory_bytes"]) >> 20).to_string(),
            state.to_owned(),
        ])
    });
    let widths = [6, 8, 9, 6, 6].map(Constraint::Length).into_iter().chain([Constraint::Min(6)]);
    let head = Row::new(["worker", "clients", "in flight", "busy", "MiB", "state"]).dim();
    Table::new(worker_rows, widths).header(head).block(ruled(" Workers ".to_owned()))
}

/// The busy time of a worker, in seconds.
fn busy_of(status: &Value, place: &Value) -> f64 {
    let worker = rows(&status["workers"]).find(|worker| worker["worker"] == *place && worker["draining"] != true);
    worker.and_then(|worker| worker["busy_seconds"].as_f64()).unwrap_or_default()
}

fn failures_table(model: &Model) -> Table<'_> {
    let mut reasons: Vec<(&str, u64, Option<f64>)> = model.status["failures"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, count)| {
            let fresh = model.rate(|status| status["failures"][reason].as_f64().unwrap_or_default());
            (reason.as_str(), number(count), fresh)
        })
        .collect();
    reasons.sort_by(|one, other| {
        let fresh = |rate: Option<f64>| rate.unwrap_or_default();
        fresh(other.2).total_cmp(&fresh(one.2)).then(other.1.cmp(&one.1))
    });
    let table_rows = reasons.into_iter().map(|(reason, count, fresh)| {
        let is_fresh = fresh.is_some_and(|rate| rate > 0.0);
        let style = if is_fresh { Style::new().red().bold() } else { Style::new() };
        Row::new([reason.to_owned(), count.to_string(), rate(fresh)]).style(style)
    });
    let widths = [Constraint::Min(10), Constraint::Length(8), Constraint::Length(7)];
    let head = Row::new(["reason", "so far", "now/s"]).dim();
    Table::new(table_rows, widths).header(head).block(ruled(" Failures ".to_owned()))
}

fn draw_hosts(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let total = number(&model.list["total"]);
    let shown = model.rows().len();
    let some = if (shown as u64) < total { format!(", {shown} shown") } else { String::new() };
    let only = if model.only_trouble { " with trouble" } else { "" };
    let search = if model.search.is_empty() { String::new() } else { format!(" with \"{}\"", model.search) };
    let title = format!(" {total} hosts{only}{search}{some}, by {} ", SORTS[model.sort].1);
    let table_rows = model.rows().iter().map(|host| {
        let (sign, style) = cluster_state(text(&host["state"]));
        let waiting = number(&host["waiting"]);
        let failed = number(&host["failures_60s"]);
        Row::new([
            Cell::from(text(&host["key"]).to_owned()),
            Cell::from(format!("{sign} {} / {}", number(&host["up"]), number(&host["backends_total"]))).style(style),
            Cell::from(number(&host["in_flight"]).to_string()),
            Cell::from(waiting.to_string()).style(if waiting > 0 {
                Style::new().yellow().bold()
            } else {
                Style::new()
            }),
            Cell::from(number(&host["requests_60s"]).to_string()),
            Cell::from(failed.to_string()).style(if failed > 0 { Style::new().red().bold() } else { Style::new() }),
        ])
    });
    let widths = [Constraint::Min(20)].into_iter().chain([12, 9, 8, 11, 8].map(Constraint::Length));
    let head = Row::new(["host", "backends", "in flight", "waiting", "last minute", "failed"]).dim();
    let table = Table::new(table_rows, widths)
        .header(head)
        .block(ruled(title))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .highlight_symbol("> ");
    let mut state = TableState::default().with_selected(Some(model.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_backends(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let host = model.open.as_deref().unwrap_or_default();
    let block = ruled(format!(" Backends of {host} "));
    let Some(opened) = &model.opened else {
        return frame.render_widget(Paragraph::new("asking the node").dim().block(block), area);
    };
    if let Some(detail) = opened["detail"].as_str() {
        return frame.render_widget(Paragraph::new(detail.to_owned()).block(block), area);
    }
    let table_rows = rows(&opened["view"]["backends"]).map(|backend| {
        let (sign, style) = backend_state(text(&backend["state"]));
        let left =
            backend["seconds_left"].as_f64().map_or_else(String::new, |left| format!(", for another {}", span(left)));
        let why = backend["reason"].as_str().map_or_else(String::new, |reason| format!("{reason}{left}"));
        Row::new([
            Cell::from(text(&backend["url"]).to_owned()),
            Cell::from(format!("{sign} {}", text(&backend["state"]).replace('_', " "))).style(style),
            Cell::from(number(&backend["in_flight"]).to_string()),
            Cell::from(number(&backend["failures"]).to_string()),
            Cell::from(why),
        ])
    });
    let widths =
        [Constraint::Fill(2)].into_iter().chain([13, 9, 7].map(Constraint::Length)).chain([Constraint::Fill(3)]);
    let head = Row::new(["backend", "state", "in flight", "failed", "why"]).dim();
    frame.render_widget(Table::new(table_rows, widths).header(head).block(block), area);
}

fn keys_line(model: &Model) -> Line<'_> {
    if model.is_searching {
        return Line::from(vec![
            "search: ".bold(),
            model.search.as_str().into(),
            "▏".into(),
            "  Enter ends it, Esc takes it back".dim(),
        ]);
    }
    let keys = [("↑↓", "host"), ("Enter", "backends"), ("s", "sort"), ("t", "trouble"), ("/", "search"), ("q", "quit")];
    Line::from(keys.iter().flat_map(|(key, what)| [key.bold(), format!(" {what}  ").dim()]).collect::<Vec<_>>())
}

fn ruled<'a>(title: String) -> Block<'a> {
    Block::new().borders(Borders::TOP).border_style(Style::new().dim()).title(Span::from(title).bold())
}

fn cluster_state(state: &str) -> (&'static str, Style) {
    match state {
        "up" => ("●", Style::new().fg(Color::Green)),
        "degraded" => ("▲", Style::new().fg(Color::Yellow)),
        "disabled" => ("◌", Style::new().fg(Color::Yellow)),
        _ => ("✕", Style::new().fg(Color::Red).bold()),
    }
}

fn backend_state(state: &str) -> (&'static str, Style) {
    match state {
        "up" => ("●", Style::new().fg(Color::Green)),
        "partly_dead" => ("▲", Style::new().fg(Color::Yellow)),
        "draining" | "disabled" | "removed" => ("◌", Style::new().fg(Color::Yellow)),
        _ => ("✕", Style::new().fg(Color::Red).bold()),
    }
}

fn all_failures(status: &Value) -> f64 {
    status["failures"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_f64()).sum()
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate < 10.0 && rate > 0.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

fn seconds(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

/// A duration in its two greatest units.
fn span(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
