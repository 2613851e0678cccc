//! x0d's JSON API of clusters, backends and buckets: x0d's paths, methods, arguments, status codes and names.
//!
//! On-demand clusters can be changed. Clusters of other sources are shown, and their backends can be disabled and
//! enabled (LOCK, UNLOCK); all other changes are made in their source.

mod arguments;
mod list;
mod view;

use super::marks::MarkIndex;
use super::{Response, Sources};
use crate::cache::purge::{PurgeMode, Selector};
use crate::cluster::{AdminState, Cluster, Member};
use crate::directory::{Arguments, Refusal};
use crate::exchange::ServiceRequest;
use list::List;
use serde_json::Value;
use std::sync::Arc;

/// The default path of the API, besides the configured one.
const OWN_PREFIX: &str = "/director";

/// The greatest number of clusters of other sources in the list.
const MAX_FIXED: usize = 1000;

/// Names and values of arguments.
type Named = Vec<(String, String)>;

/// The response to a request; `None` where its path is not one of the API.
pub(super) fn respond(request: &ServiceRequest, path: &str, query: &str, sources: &Sources) -> Option<Response> {
    let prefix = sources.settings.director_prefix.as_deref()?;
    let below = |prefix: &str| path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let rest = below(prefix).or_else(|| below(OWN_PREFIX))?;
    let method = if request.method == "HEAD" { "GET" } else { &request.method };
    let response = read(rest, query, request).and_then(|(segments, arguments)| {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        Call { method, arguments: &arguments, sources }.respond(&segments)
    });
    Some(response.unwrap_or_else(|refusal| refusal))
}

/// Splits the path below the prefix into segments, and parses the arguments.
fn read(rest: &str, query: &str, request: &ServiceRequest) -> Result<(Vec<String>, Named), Response> {
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let segments = if rest.is_empty() { Vec::new() } else { rest.split('/').collect() };
    let segments: Result<_, _> = segments.into_iter().map(arguments::decoded).collect();
    Ok((segments?, arguments::read(query, &request.body)?))
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        Self::problem(refusal.status(), &refusal.to_string())
    }
}

struct Call<'a> {
    method: &'a str,
    arguments: &'a Arguments,
    sources: &'a Sources,
}

impl Call<'_> {
    fn respond(&self, segments: &[&str]) -> Result<Response, Response> {
        match segments {
            [] => self.all(),
            [cluster] => self.cluster(cluster),
            [cluster, "backends"] => self.new_backend(cluster),
            [cluster, "backends", backend] => self.backend(cluster, backend),
            [cluster, "buckets"] => self.new_bucket(cluster),
            [cluster, "buckets", bucket] => self.bucket(cluster, bucket),
            _ => Err(Response::problem(
                404,
                "paths are /, /CLUSTER, /CLUSTER/backends/BACKEND and /CLUSTER/buckets/BUCKET",
            )),
        }
    }

    fn all(&self) -> Result<Response, Response> {
        if self.method != "GET" {
            return Err(not_allowed("GET"));
        }
        self.without_arguments()?;
        let (directory, now) = (&self.sources.directory, self.sources.clock.now());
        let mut index = MarkIndex::new(self.sources, now);
        let mut all = List::new(list::MAX_LIST);
        for view in directory.on_demand_clusters() {
            all.push(&view.definition().name, || view::on_demand(&view, &mut index, now));
        }
        let others = directory.clusters();
        let mut others = others.iter().filter(|cluster| !directory.is_on_demand(cluster));
        for cluster in others.by_ref().take(MAX_FIXED) {
            all.push(&cluster.key, || view::fixed(cluster, self.sources.source_kind, &mut index, now));
        }
        all.leave_out(others.count());
        let (text, left_out) = all.finish();
        let response = Response::new(200, "application/json", text);
        Ok(if left_out == 0 { response } else { response.with_field(&format!("X-Left-Out: {left_out}")) })
    }

    fn cluster(&self, name: &str) -> Result<Response, Response> {
        let directory = &self.sources.directory;
        match self.method {
            "GET" => {
                self.without_arguments()?;
                let now = self.sources.clock.now();
                let mut index = MarkIndex::new(self.sources, now);
                if let Some(view) = directory.on_demand_cluster(name) {
                    return Ok(Response::json(&view::on_demand(&view, &mut index, now)));
                }
                let cluster = self.fixed(name).ok_or_else(|| no_cluster(name))?;
                Ok(Response::json(&view::fixed(&cluster, self.sources.source_kind, &mut index, now)))
            }
            "PUT" => {
                let had_another = self.fixed(name).is_some();
                if directory.put_cluster(name, self.arguments)? && had_another {
                    self.forget_objects(name);
                }
                let view = directory.on_demand_cluster(name).ok_or_else(|| no_cluster(name))?;
                let definition = view.definition();
                let host = definition.hostname.as_deref().unwrap_or(name);
                let port = definition.port.map(|port| format!(":{port}")).unwrap_or_default();
                Ok(done(201).with_field(&format!("Location: http://{host}{port}/")))
            }
            "POST" => {
                self.check_mutable(name)?;
                directory.edit_cluster(name, self.arguments)?;
                Ok(done(202))
            }
            "DELETE" => {
                self.check_mutable(name)?;
                self.without_arguments()?;
                directory.remove_cluster(name)?;
                Ok(done(204))
            }
            "LOCK" | "UNLOCK" => {
                self.check_mutable(name)?;
                self.without_arguments()?;
                directory.enable_cluster(name, self.method == "UNLOCK")?;
                Ok(done(204))
            }
            _ => Err(not_allowed("GET, PUT, POST, DELETE, LOCK, UNLOCK")),
        }
    }

    /// Purges the stored objects of a cluster with this name: another application may use the name next.
    fn forget_objects(&self, name: &str) {
        if let Some(store) = &self.sources.cache {
            store.purge(&Selector::Frontend(name.into()), PurgeMode::Hard);
        }
    }

    fn new_backend(&self, cluster: &str) -> Result<Response, Response> {
        if self.method != "PUT" {
            return Err(not_allowed("PUT"));
        }
        self.check_mutable(cluster)?;
        self.sources.directory.add_backend(cluster, None, self.arguments)?;
        Ok(done(201))
    }

    fn backend(&self, cluster: &str, backend: &str) -> Result<Response, Response> {
        let directory = &self.sources.directory;
        match self.method {
            "GET" => {
                self.without_arguments()?;
                self.show_backend(cluster, backend)
            }
            "PUT" => {
                self.check_mutable(cluster)?;
                directory.add_backend(cluster, Some(backend), self.arguments)?;
                Ok(done(201))
            }
            "POST" => {
                self.check_mutable(cluster)?;
                directory.edit_backend(cluster, backend, self.arguments)?;
                Ok(done(202))
            }
            "DELETE" => {
                self.check_mutable(cluster)?;
                self.without_arguments()?;
                directory.remove_backend(cluster, backend)?;
                Ok(done(202))
            }
            "LOCK" | "UNLOCK" => {
                self.without_arguments()?;
                let is_enabled = self.method == "UNLOCK";
                match self.fixed(cluster) {
                    Some(fixed) => self.enable_fixed(&fixed, backend, is_enabled)?,
                    None => directory.enable_backend(cluster, backend, is_enabled)?,
                }
                Ok(done(202))
            }
            _ => Err(not_allowed("GET, PUT, POST, DELETE, LOCK, UNLOCK")),
        }
    }

    fn show_backend(&self, cluster: &str, backend: &str) -> Result<Response, Response> {
        let now = self.sources.clock.now();
        let mut index = MarkIndex::new(self.sources, now);
        let shown: Option<Value> = match (self.sources.directory.on_demand_cluster(cluster), self.fixed(cluster)) {
            (Some(view), _) => view::on_demand_backend(&view, backend, &mut index, now),
            (None, Some(fixed)) => fixed_backend(&fixed, backend)
                .map(|(place, member)| view::fixed_member(member, place, &index.marks(&fixed), now)),
            (None, None) => return Err(no_cluster(cluster)),
        };
        shown.map(|view| Response::json(&view)).ok_or_else(|| no_backend(backend))
    }

    fn new_bucket(&self, cluster: &str) -> Result<Response, Response> {
        if self.method != "PUT" {
            return Err(not_allowed("PUT"));
        }
        self.check_mutable(cluster)?;
        self.sources.directory.put_bucket(cluster, None, self.arguments)?;
        Ok(done(204))
    }

    fn bucket(&self, cluster: &str, bucket: &str) -> Result<Response, Response> {
        let directory = &self.sources.directory;
        match self.method {
            "GET" => {
                self.without_arguments()?;
                let shown = directory.on_demand_cluster(cluster).ok_or_else(|| no_cluster(cluster))?.bucket(bucket);
                return shown.map(|view| Response::json(&view)).ok_or_else(|| Response::problem(404, "no such bucket"));
            }
            "PUT" => {
                self.check_mutable(cluster)?;
                directory.put_bucket(cluster, Some(bucket), self.arguments)?;
            }
            "POST" => {
                self.check_mutable(cluster)?;
                directory.edit_bucket(cluster, bucket, self.arguments)?;
            }
            "DELETE" => {
                self.check_mutable(cluster)?;
                self.without_arguments()?;
                directory.remove_bucket(cluster, bucket)?;
            }
            _ => return Err(not_allowed("GET, PUT, POST, DELETE")),
        }
        Ok(done(204))
    }

    /// The cluster of another source; `None` if there is none, or if an on-demand cluster has its name.
    fn fixed(&self, name: &str) -> Option<Arc<Cluster>> {
        let directory = &self.sources.directory;
        directory.cluster(name).filter(|cluster| !directory.is_on_demand(cluster))
    }

    fn check_mutable(&self, name: &str) -> Result<(), Response> {
        match self.fixed(name) {
            None => Ok(()),
            Some(_) => Err(Response::problem(403, "this is not an on-demand cluster: change it in its source")),
        }
    }

    fn enable_fixed(&self, cluster: &Arc<Cluster>, backend: &str, is_enabled: bool) -> Result<(), Response> {
        let (_, member) = fixed_backend(cluster, backend).ok_or_else(|| no_backend(backend))?;
        if is_enabled && member.attributes.is_disabled {
            return Err(Response::problem(403, "the list disables this backend: change the list"));
        }
        let now = self.sources.clock.now();
        let admin = if is_enabled { AdminState::Ready } else { AdminState::Disabled };
        if !self.sources.directory.set_admin_state(cluster, member, admin, now) {
            return Err(Response::problem(
                409,
                "too many backends are disabled or draining already: enable some of them",
            ));
        }
        cluster.serve(now);
        Ok(())
    }

    fn without_arguments(&self) -> Result<(), Response> {
        match self.arguments.first() {
            None => Ok(()),
            Some(_) => Err(Response::problem(400, &format!("{} takes no arguments", self.method))),
        }
    }
}

/// The backend with this name: host and port, or the URL as written.
fn fixed_backend<'c>(cluster: &'c Cluster, name: &str) -> Option<(usize, &'c Member)> {
    cluster
        .members
        .iter()
        .enumerate()
        .find(|(_, member)| member.url.as_str() == name || view::fixed_name(member) == name)
}

fn done(status: u16) -> Response {
    Response::text(status, "")
}

fn not_allowed(methods: &str) -> Response {
    Response::problem(405, &format!("this path takes {methods}")).with_field(&format!("Allow: {methods}"))
}

fn no_cluster(name: &str) -> Response {
    Response::problem(404, &format!("no cluster {}", crate::base::printable::printable(name)))
}

fn no_backend(name: &str) -> Response {
    Response::problem(404, &format!("no backend {}", crate::base::printable::printable(name)))
}
