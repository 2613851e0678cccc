//! A proxy with its rules.

use super::{Lowering, Servers};
use crate::haproxy::keyword::Treatment::Lost;
use crate::haproxy::model::{Flag, Proxy};
use crate::haproxy::program::Program;
use crate::haproxy::rules::{FormatPart, can_render};
use crate::haproxy::serve::{ServedProxy, StickTable};
use std::sync::Arc;

impl Lowering<'_, '_> {
    /// The served form of a proxy. Its servers are those of its cluster.
    pub(super) fn proxy(&mut self, proxy: &Proxy, servers: Servers) -> ServedProxy {
        // Fields whose treatment is fixed by the keyword alone are covered by the table of keywords.
        let Proxy {
            kind: _,
            name,
            // The position is not needed.
            at: _,
            inherited_rules: _,
            mode: _,
            is_disabled: _,
            binds: _,
            servers: _,
            default_server: _,
            maxconn,
            backlog: _,
            fullconn: _,
            session_rate: _,
            balance: _,
            hash_type: _,
            hash_balance_factor: _,
            persistence,
            dynamic_cookie_key: _,
            check: _,
            timeouts,
            flags: _,
            forwarded_for,
            retries: _,
            retry_on: _,
            reuse: _,
            errors,
            stats,
            monitor_uri,
            monitor_fail: _,
            // sluice has its own access log.
            logs: _,
            log_format: _,
            log_tag: _,
            unique_id_format,
            unique_id_header,
            compression,
            stick_table,
            // They are compiled with the rules.
            stick_rules: _,
            acls: _,
            rules: _,
            captures,
            default_backend: _,
        } = proxy;
        let errors = self.errors(errors);
        let served = self.served(proxy);
        ServedProxy {
            name: name.as_str().into(),
            is_frontend: proxy.is_frontend(),
            is_backend: proxy.is_backend(),
            program: Program::new(&served, self.model),
            route: None,
            servers: servers.into(),
            persistence: persistence.clone().filter(|_| proxy.is_backend()),
            forwarded_for: forwarded_for.clone(),
            errors,
            monitor_uri: monitor_uri.as_deref().map(Into::into),
            unique_id_format: unique_id_format.clone(),
            unique_id_header: unique_id_header.as_deref().map(Into::into),
            head_timeout: timeouts.http_request.or(timeouts.client),
            ignores_client_abort: !proxy.has(Flag::AbortOnClose),
            uses_all_backups: proxy.has(Flag::AllBackups),
            compression: compression.clone(),
            table: stick_table.as_ref().map(|table| Arc::new(StickTable::new(table))),
            statistics: Some(stats).filter(|stats| stats.is_enabled).cloned(),
            captures: captures.clone(),
            load: Arc::default(),
            // 0 means no limit.
            connection_limit: maxconn.filter(|limit| *limit > 0),
        }
    }

    /// The proxy with the rules that are served. Their files are loaded.
    fn served(&mut self, proxy: &Proxy) -> Proxy {
        self.unique_id(proxy);
        let served = self.without_missing(proxy);
        let rules = &served.rules;
        for list in [&rules.request, &rules.content, &rules.response, &rules.after_response] {
            self.files_of(list);
        }
        served
    }

    /// Reports parts of a unique identifier that cannot be filled in.
    fn unique_id(&mut self, proxy: &Proxy) {
        if let Some(format) = proxy.unique_id_format.as_ref().filter(|_| proxy.unique_id_header.is_some())
            && format.parts.iter().any(|part| matches!(part, FormatPart::Alias(alias, _) if !can_render(alias)))
        {
            self.say(
                proxy.at,
                "unique-id-format",
                Lost,
                "it has parts that are known in the log only, which stay empty",
            );
        }
    }
}
