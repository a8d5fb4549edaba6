//! Disturbing a watch: its events are the frames of the answer's body, one line each.

use super::Fault;
use crate::server::{Seeded, SimBody};
use futures::StreamExt as _;
use http::Response;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use std::convert::Infallible;
use std::time::Duration;

/// Wraps the body of a watch in the faults that concern events. Errors and bookmarks are never dropped.
pub(super) fn disturb(response: Response<SimBody>, faults: &[Fault], seed: u64) -> Response<SimBody> {
    let mut drop_share = 0;
    let mut delay = Duration::ZERO;
    let mut end_after = usize::MAX;
    for fault in faults {
        match fault {
            Fault::DropEvents(percent) => drop_share = u64::from(*percent),
            Fault::DelayEvents(time) => delay = *time,
            Fault::EndWatch(events) => end_after = *events,
            _ => {}
        }
    }
    if drop_share == 0 && delay.is_zero() && end_after == usize::MAX {
        return response;
    }
    let (parts, body) = response.into_parts();
    let mut random = Seeded::new(seed);
    let frames = BodyStream::new(body)
        .filter(move |frame| {
            let is_event = matches!(frame, Ok(frame) if frame.data_ref().is_some_and(|line| {
                line.starts_with(br#"{"type":"ADDED""#) || line.starts_with(br#"{"type":"MODIFIED""#) || line.starts_with(br#"{"type":"DELETED""#)
            }));
            let lost = is_event && drop_share > 0 && random.below(100) < drop_share;
            std::future::ready(!lost)
        })
        .then(move |frame: Result<_, Infallible>| async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            frame
        })
        .take(end_after);
    Response::from_parts(parts, StreamBody::new(frames).boxed_unsync())
}
