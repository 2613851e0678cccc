//! The state in which the missing part of a stored response is read from a backend, or a body that only the cache needs. Once
//! complete, the response is served like a stored one.

use super::body_forwarder::BodyForwarder;
use super::caching::Caching;
use super::events::{Input, Side};
use super::output_queue::ByteSink;
use super::request_context::RequestContext;
use super::step_context::StepContext;
use super::transition::{Failure, Next, Remains, Step, Transition};
use crate::base::clock::Moment;
use crate::base::reason::FailureReason;
use crate::base::slice_ext::SliceExt;
use crate::wire::body::BodyLength;
use std::ops::Range;

#[derive(Debug)]
pub(super) struct GatheringPart {
    pub(super) context: Box<RequestContext>,
    upstream_stays: bool,
}

impl GatheringPart {
    /// Gathers the part of the body after the head, which has this length.
    pub(super) fn start(
        mut context: Box<RequestContext>,
        (body, upstream_stays): (BodyLength, bool),
        (rest, head_len): (&[u8], usize),
        cx: &mut StepContext<'_>,
    ) -> Step<Self> {
        context.download = BodyForwarder::new(body, false, &cx.core.settings.limits);
        cx.consumed = 0;
        let step = Self { context, upstream_stays }.receive(rest, cx);
        cx.consumed += head_len;
        step
    }

    pub(super) fn step(mut self, input: Input<'_>, cx: &mut StepContext<'_>) -> Step<Self> {
        match input {
            Input::Bytes(Side::Upstream, bytes) => self.receive(bytes, cx),
            Input::End(Side::Upstream) | Input::Broken(Side::Upstream) => Ok(self.ask_as_client(false).into()),
            Input::UpstreamWriteClosed => {
                self.upstream_stays = false;
                Ok(Next::Stay(self))
            }
            Input::Deadline => {
                self.context.caching.iter_mut().for_each(|caching| caching.ask_as_client());
                Err(Failure::new(self.context, FailureReason::ResponseTimeout).leaving(Remains::Sent))
            }
            _ => Ok(Next::Stay(self)),
        }
    }

    fn receive(mut self, bytes: &[u8], cx: &mut StepContext<'_>) -> Step<Self> {
        let now = cx.core.now;
        let RequestContext { download, caching, .. } = &mut *self.context;
        let fed = match caching {
            Some(caching) => download.feed(bytes, &mut Gatherer { caching, now }).ok(),
            None => None,
        };
        cx.consumed = fed.unwrap_or(bytes.len());
        match fed {
            Some(_) if !self.context.download.is_done() => {
                cx.deadline_in(cx.body_timeout());
                Ok(Next::Stay(self))
            }
            Some(consumed) if consumed == bytes.len() => Ok(self.finish(cx).into()),
            // With bytes after the part, the end of the part is uncertain.
            _ => Ok(self.ask_as_client(false).into()),
        }
    }

    /// Serves the response, or requests what the client requested if the part is of no use.
    fn finish(mut self, cx: &mut StepContext<'_>) -> Transition {
        let (store, route) = (cx.core.cache.clone(), cx.common.route().cloned());
        let joined = match (&mut self.context.caching, store, route) {
            (Some(caching), Some(store), Some(route)) => {
                caching.join(&store, &route.cluster.options.cache, cx.core.now)
            }
            _ => None,
        };
        let Some((object, served)) = joined else {
            let reuse = self.upstream_stays;
            return self.ask_as_client(reuse);
        };
        self.context.caching = None;
        cx.common.stats.backend_done(cx.core.now);
        cx.release(self.upstream_stays);
        Transition::ServeCached(self.context, object, served)
    }

    /// Nothing of the response was sent: the client's own request is sent to the member.
    #[cold]
    fn ask_as_client(mut self, reuse: bool) -> Transition {
        self.context.caching.iter_mut().for_each(|caching| caching.ask_as_client());
        Transition::SendAgain { context: self.context, reuse }
    }
}

/// Consumes the bytes of a body, without forwarding them.
struct Gatherer<'a> {
    caching: &'a mut Caching,
    now: Moment,
}

impl ByteSink for Gatherer<'_> {
    /// These are chunk sizes and trailers, not the body.
    fn make(&mut self, _: impl FnOnce(&mut Vec<u8>)) {}

    fn pass(&mut self, input: &[u8], part: Range<usize>) {
        self.caching.collect(input.slice(part), self.now);
    }
}
