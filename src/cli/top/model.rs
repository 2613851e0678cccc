//! The state of the view, and the effect of keys. Pure: no terminal, no node.

use super::feed::News;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::Value;

/// The greatest number of hosts in the list. A search finds the others.
const ROWS: usize = 200;

/// Rows skipped by Page Up and Page Down.
const PAGE: usize = 10;

/// The orders of hosts: the value of `sort` in the API, and its name on the screen.
pub(super) const SORTS: [(&str, &str); 5] = [
    ("requests_60s", "requests"),
    ("failures_60s", "failed"),
    ("in_flight", "in flight"),
    ("waiting", "waiting"),
    ("key", "host"),
];

/// The effect of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// The frame changes.
    Draw,
    /// The query changes.
    Ask,
    /// The query changes when typing pauses.
    AskLater,
    /// The end.
    Quit,
}

/// The state of the view.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// The newest status, and the previous one.
    pub(super) status: Value,
    before: Value,
    /// The page of hosts, and the host whose backends are shown.
    pub(super) list: Value,
    pub(super) open: Option<String>,
    pub(super) opened: Option<Value>,
    pub(super) source: Value,
    /// The reason why there is no news.
    pub(super) problem: Option<String>,
    pub(super) search: String,
    pub(super) is_searching: bool,
    pub(super) only_trouble: bool,
    pub(super) sort: usize,
    /// The index of the selected row.
    pub(super) selected: usize,
}

impl Model {
    /// The query for the present view.
    pub(super) fn query(&self) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (sort, _) = SORTS[self.sort];
        let mut query = format!("per_page={ROWS}&sort={sort}&search={}", encoded(self.search.trim()));
        if self.only_trouble {
            query.push_str("&trouble=1");
        }
        if let Some(host) = &self.open {
            query.push_str("&open=");
            query.push_str(&encoded(host));
        }
        query
    }

    pub(super) fn on_news(&mut self, news: News) {
        match news {
            News::Problem(problem) => return self.problem = Some(problem),
            News::Event(name, data) => match name.as_str() {
                "status" => self.before = std::mem::replace(&mut self.status, data),
                "frontends" => self.set_list(data),
                "frontend" if data["asked"].as_str() == self.open.as_deref() => self.opened = Some(data),
                "source" => self.source = data,
                _ => {}
            },
        }
        self.problem = None;
    }

    /// The selected host stays selected when its row moves.
    fn set_list(&mut self, list: Value) {
        let selected = self.selected_key().map(str::to_owned);
        self.list = list;
        let place = self.rows().iter().position(|row| row["key"].as_str() == selected.as_deref());
        self.selected = place.unwrap_or(self.selected).min(self.rows().len().saturating_sub(1));
    }

    /// The hosts.
    pub(super) fn rows(&self) -> &[Value] {
        self.list["frontends"].as_array().map_or(&[], Vec::as_slice)
    }

    fn selected_key(&self) -> Option<&str> {
        self.rows().get(self.selected)?["key"].as_str()
    }

    /// The growth per second of a number in the status; `None` without two statuses of one process.
    pub(super) fn rate(&self, number: impl Fn(&Value) -> f64) -> Option<f64> {
        let time = |status: &Value| status["uptime_seconds"].as_f64();
        let seconds = time(&self.status)? - time(&self.before)?;
        let is_same = self.status["pid"] == self.before["pid"];
        (is_same && seconds > 0.0).then(|| ((number(&self.status) - number(&self.before)) / seconds).max(0.0))
    }

    pub(super) fn on_key(&mut self, key: KeyEvent) -> Reaction {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => Reaction::Quit,
            _ if self.is_searching => self.on_search_key(key.code),
            KeyCode::Char('q') => Reaction::Quit,
            KeyCode::Esc => self.on_escape(),
            KeyCode::Char('/') => {
                self.is_searching = true;
                Reaction::Draw
            }
            KeyCode::Char('s') => {
                self.sort = (self.sort + 1) % SORTS.len();
                self.selected = 0;
                Reaction::Ask
            }
            KeyCode::Char('t') => {
                self.only_trouble = !self.only_trouble;
                Reaction::Ask
            }
            KeyCode::Enter => self.toggle(),
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.selected + 1),
            KeyCode::PageUp => self.select(self.selected.saturating_sub(PAGE)),
            KeyCode::PageDown => self.select(self.selected + PAGE),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            _ => Reaction::Draw,
        }
    }

    /// Closes the backends, then clears the search, then quits.
    fn on_escape(&mut self) -> Reaction {
        if self.open.take().is_some() {
            self.opened = None;
        } else if self.search.is_empty() {
            return Reaction::Quit;
        } else {
            self.search.clear();
        }
        Reaction::Ask
    }

    fn on_search_key(&mut self, code: KeyCode) -> Reaction {
        match code {
            KeyCode::Enter | KeyCode::Down => {
                self.is_searching = false;
                return Reaction::Ask;
            }
            KeyCode::Esc => {
                self.is_searching = false;
                self.search.clear();
                return Reaction::Ask;
            }
            KeyCode::Backspace => drop(self.search.pop()),
            KeyCode::Char(character) => self.search.push(character),
            _ => return Reaction::Draw,
        }
        self.selected = 0;
        Reaction::AskLater
    }

    fn toggle(&mut self) -> Reaction {
        let selected = self.selected_key().map(str::to_owned);
        self.opened = None;
        self.open = if self.open == selected { None } else { selected };
        Reaction::Ask
    }

    fn select(&mut self, place: usize) -> Reaction {
        self.selected = place.min(self.rows().len().saturating_sub(1));
        Reaction::Draw
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn press(model: &mut Model, code: KeyCode) -> Reaction {
        model.on_key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn tell(model: &mut Model, name: &str, data: Value) {
        model.on_news(News::Event(name.to_owned(), data));
    }

    fn with_hosts(keys: &[&str]) -> Value {
        json!({ "frontends": keys.iter().map(|key| json!({ "key": key })).collect::<Vec<_>>() })
    }

    #[test]
    fn keys_choose_what_the_node_is_asked_for() {
        let mut model = Model::default();
        tell(&mut model, "frontends", with_hosts(&["a.test", "b.test"]));
        assert_eq!(model.query(), "per_page=200&sort=requests_60s&search=");
        assert_eq!(
            (press(&mut model, KeyCode::Char('s')), press(&mut model, KeyCode::Char('t'))),
            (Reaction::Ask, Reaction::Ask)
        );
        assert_eq!(press(&mut model, KeyCode::Char('/')), Reaction::Draw);
        for character in "b é".chars() {
            assert_eq!(press(&mut model, KeyCode::Char(character)), Reaction::AskLater);
        }
        press(&mut model, KeyCode::Backspace);
        assert_eq!(press(&mut model, KeyCode::Enter), Reaction::Ask);
        press(&mut model, KeyCode::Down);
        press(&mut model, KeyCode::Down);
        assert_eq!(press(&mut model, KeyCode::Enter), Reaction::Ask);
        assert_eq!(model.query(), "per_page=200&sort=failures_60s&search=b&trouble=1&open=b%2Etest");
        // Escape goes back, step by step.
        assert_eq!(press(&mut model, KeyCode::Esc), Reaction::Ask);
        assert_eq!((model.open.as_deref(), model.search.as_str()), (None, "b "));
        assert_eq!(press(&mut model, KeyCode::Esc), Reaction::Ask);
        assert_eq!(press(&mut model, KeyCode::Esc), Reaction::Quit);
        assert_eq!(press(&mut model, KeyCode::Char('q')), Reaction::Quit);
        assert_eq!(model.on_key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Reaction::Quit);
    }

    #[test]
    fn the_selected_host_stays_selected() {
        let mut model = Model::default();
        tell(&mut model, "frontends", with_hosts(&["a", "b", "c"]));
        press(&mut model, KeyCode::Down);
        tell(&mut model, "frontends", with_hosts(&["c", "a", "b"]));
        assert_eq!(model.selected_key(), Some("b"));
        tell(&mut model, "frontends", with_hosts(&["c"]));
        assert_eq!(model.selected_key(), Some("c"));
        tell(&mut model, "frontends", with_hosts(&[]));
        assert_eq!((press(&mut model, KeyCode::End), model.selected), (Reaction::Draw, 0));
    }

    #[test]
    fn rates_are_of_one_process() {
        let status = |pid: u64, uptime: f64, requests: u64| json!({ "pid": pid, "uptime_seconds": uptime, "totals": { "requests": requests } });
        let requests = |status: &Value| status["totals"]["requests"].as_f64().unwrap_or_default();
        let mut model = Model::default();
        tell(&mut model, "status", status(1, 10.0, 100));
        assert_eq!(model.rate(requests), None);
        tell(&mut model, "status", status(1, 12.0, 200));
        assert_eq!(model.rate(requests), Some(50.0));
        tell(&mut model, "status", status(2, 13.0, 5));
        assert_eq!(model.rate(requests), None);
    }

    #[test]
    fn a_problem_is_shown_until_there_is_news() {
        let mut model = Model::default();
        model.on_news(News::Problem("refused".to_owned()));
        assert_eq!(model.problem.as_deref(), Some("refused"));
        tell(&mut model, "source", json!({}));
        assert_eq!(model.problem, None);
    }
}
