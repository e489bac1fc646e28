use protocol::oip::rest::{self, RegionStatus};

use crate::doors::control;
use crate::doors::path::{Device, Region, RegionVerb};
use crate::doors::visit::Visit;
use crate::reply::{Failure, Reply, Shape};
use crate::upload::Upload;

/// Whatever the content type: perf_analyzer sends JSON as a form, and asks for what it does not use.
pub(super) async fn answer(
    mut visit: Visit<'_>,
    asked: Region,
    body: &mut Upload,
) -> Result<Reply, Failure> {
    control::may_see_regions(&visit)?;
    let body = visit.whole_body(body, Shape::Oip).await?;
    let name = asked.name.as_str();
    match (asked.device, asked.verb) {
        (Device::System, RegionVerb::Status) => {
            let regions = visit.exchange.gateway.shared().regions.status(name)?;
            let shown = regions.iter().map(|region| RegionStatus {
                name: &region.name,
                key: &region.key,
                offset: region.offset,
                byte_size: region.bytes,
            });
            Ok(Reply::json(rest::regions(&shown.collect::<Vec<_>>())))
        }
        (Device::System, RegionVerb::Register) => {
            control::may_share_memory(&visit)?;
            let place = rest::read_region(&body)?;
            let regions = &visit.exchange.gateway.shared().regions;
            regions.register(name, &place.key, (place.offset, place.byte_size))?;
            Ok(Reply::json(&b"{}"[..]))
        }
        (Device::System, RegionVerb::Unregister) => {
            visit.exchange.gateway.shared().regions.unregister(name);
            Ok(Reply::json(&b"{}"[..]))
        }
        (Device::Cuda, RegionVerb::Status) => {
            control::cuda_status(&visit, name)?;
            Ok(Reply::json(rest::regions(&[])))
        }
        (Device::Cuda, RegionVerb::Register) => Err(control::no_cuda(name).into()),
        (Device::Cuda, RegionVerb::Unregister) => Ok(Reply::json(&b"{}"[..])),
    }
}
