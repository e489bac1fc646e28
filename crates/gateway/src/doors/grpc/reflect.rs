//! gRPC reflection: what `grpcurl` and its like ask before they can ask anything else.

use http::HeaderMap;
use prost::Message as _;
use protocol::ApiError;
use protocol::oip::reflection;

use super::decode;
use super::open::{Answers, Open, Requests, stopped};
use crate::doors::visit::Visit;
use crate::reply::{Failure, Reply};
use crate::upload::Upload;

pub(super) fn answer(
    mut visit: Visit<'_>,
    headers: &HeaderMap,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    let (open, requests) = Open::new(&mut visit, headers, body)?;
    Ok(open.reply(|open, answers| async move { run(&open, requests, answers).await }))
}

async fn run(open: &Open, mut requests: Requests, answers: Answers) -> Result<(), ApiError> {
    let mut stopping = open.stopping();
    loop {
        // Cancel-safe: a message that is lost half read is lost with its call.
        let (reader, read) = tokio::select! {
            biased;
            read = open.read(requests) => read,
            () = &mut stopping => return Err(stopped()),
        };
        let Some(message) = read.map_err(|failure| failure.error)? else {
            return Ok(());
        };
        let answer = reflection::answer(decode(message.received.message)?);
        if answers
            .send(vec![answer.encode_to_vec().into()])
            .await
            .is_err()
        {
            return Ok(());
        }
        requests = reader;
    }
}
