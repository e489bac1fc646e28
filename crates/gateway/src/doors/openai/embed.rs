//! `/v1/embeddings` from whatever gives vectors for texts: a text model, or any model that takes strings.

use std::sync::Arc;

use http::HeaderMap;
use protocol::embed;
use protocol::openai;
use telemetry::Stage;

use crate::doors::visit::Visit;
use crate::reply::{Failure, Reply};
use crate::upstream::Upstream;

/// `elsewhere`: an upstream that has the model and does not speak OpenAI.
pub(super) async fn answer(
    mut visit: Visit<'_>,
    body: &[u8],
    elsewhere: Option<(&Arc<Upstream>, &HeaderMap)>,
) -> Result<Reply, Failure> {
    let (request, format) = openai::parse_embeddings(body)?;
    visit.exchange.mark(Stage::Parse);
    let gateway = visit.exchange.gateway.clone();
    let models = &gateway.shared().models;
    let deadline = visit.exchange.deadline;
    let embeddings = if let Some((upstream, headers)) = elsewhere {
        let mut bridge = visit.bridge(upstream, headers);
        let metadata = bridge.metadata((&request.model, None)).await?;
        let asked = embed::infer_request(&request, &metadata)?;
        let response = bridge.infer(asked).await?;
        embed::of_response(&request, &response)?
    } else if models.embeds(&request.model) {
        let (embeddings, timing) = visit.wait(models.embed(request, deadline)).await?;
        visit.mark_call(&timing);
        embeddings
    } else {
        visit.wait(models.wake(&request.model, None)).await?;
        let metadata = models.metadata(&request.model, None)?;
        let asked = embed::infer_request(&request, &metadata)?;
        let (response, timing) = visit.wait(models.infer(asked, deadline)).await?;
        visit.mark_call(&timing);
        embed::of_response(&request, &response)?
    };
    visit.used(embeddings.tokens);
    Ok(Reply::json(openai::encode_embeddings(&embeddings, format)))
}
