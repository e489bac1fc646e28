use protocol::oip::proto;
use protocol::oip::proto::system_shared_memory_status_response::RegionStatus;

use super::decode;
use crate::doors::control;
use crate::doors::path::{Device, RegionVerb};
use crate::doors::visit::Visit;
use crate::grpc::answer as answer_message;
use crate::read::Pieces;
use crate::reply::{Failure, Reply};

pub(super) fn answer(
    visit: &Visit<'_>,
    asked: (Device, RegionVerb),
    message: Pieces,
) -> Result<Reply, Failure> {
    control::may_see_regions(visit)?;
    let regions = &visit.exchange.gateway.shared().regions;
    Ok(match asked {
        (Device::System, RegionVerb::Status) => {
            let request: proto::SystemSharedMemoryStatusRequest = decode(message)?;
            let found = regions.status(&request.name)?;
            let shown = found.iter().map(|region| {
                let status = RegionStatus {
                    name: region.name.clone(),
                    key: region.key.clone(),
                    offset: region.offset,
                    byte_size: region.bytes,
                };
                (region.name.clone(), status)
            });
            answer_message(&proto::SystemSharedMemoryStatusResponse {
                regions: shown.collect(),
            })
        }
        (Device::System, RegionVerb::Register) => {
            control::may_share_memory(visit)?;
            let request: proto::SystemSharedMemoryRegisterRequest = decode(message)?;
            regions.register(
                &request.name,
                &request.key,
                (request.offset, request.byte_size),
            )?;
            answer_message(&proto::SystemSharedMemoryRegisterResponse {})
        }
        (Device::System, RegionVerb::Unregister) => {
            let request: proto::SystemSharedMemoryUnregisterRequest = decode(message)?;
            regions.unregister(&request.name);
            answer_message(&proto::SystemSharedMemoryUnregisterResponse {})
        }
        (Device::Cuda, RegionVerb::Status) => {
            let request: proto::CudaSharedMemoryStatusRequest = decode(message)?;
            control::cuda_status(visit, &request.name)?;
            answer_message(&proto::CudaSharedMemoryStatusResponse::default())
        }
        (Device::Cuda, RegionVerb::Register) => {
            let request: proto::CudaSharedMemoryRegisterRequest = decode(message)?;
            return Err(control::no_cuda(&request.name).into());
        }
        (Device::Cuda, RegionVerb::Unregister) => {
            let _request: proto::CudaSharedMemoryUnregisterRequest = decode(message)?;
            answer_message(&proto::CudaSharedMemoryUnregisterResponse {})
        }
    })
}
