use protocol::oip::grpc::{decode_infer, encode_infer, infer_request, shared_inputs};
use telemetry::Stage;

use crate::doors::visit::Visit;
use crate::grpc::answer_pieces;
use crate::read::Pieces;
use crate::regions;
use crate::reply::{Failure, Reply};

pub(super) async fn answer(mut visit: Visit<'_>, message: Pieces) -> Result<Reply, Failure> {
    let gateway = visit.exchange.gateway.clone();
    let shared = gateway.shared();
    let message = decode_infer(message, &shared.pool)?;
    let places = shared_inputs(&message)?;
    let read = if places.is_empty() {
        Vec::new()
    } else {
        Box::pin(visit.read_shared(&places)).await?
    };
    let (request, placement) = infer_request(message, read)?;
    let destinations = shared.regions.destinations(&placement)?;
    visit.exchange.mark(Stage::Parse);
    let call = shared.models.infer(request, visit.exchange.deadline);
    let (response, timing) = visit.wait(call).await?;
    visit.mark_call(&timing);
    visit.exchange.answered(&response);
    Box::pin(regions::write(&destinations, &response)).await?;
    Ok(answer_pieces(encode_infer(response, &placement)))
}
