//! What gRPC reflection answers: the services of this server and the files that describe them.

use prost_reflect::{DescriptorPool, FileDescriptor};

use super::proto::reflection::server_reflection_request::MessageRequest;
use super::proto::reflection::server_reflection_response::MessageResponse;
use super::proto::reflection::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};
use crate::config::pool;

const NOT_FOUND: i32 = 5;
const INVALID_ARGUMENT: i32 = 3;

/// The answer to one request. What is not there is an answer too.
pub fn answer(request: ServerReflectionRequest) -> ServerReflectionResponse {
    let found = match &request.message_request {
        None => Err((INVALID_ARGUMENT, "the request asks for nothing".to_owned())),
        Some(asked) => look_up(pool(), asked).ok_or_else(|| {
            let what = match asked {
                MessageRequest::FileByFilename(name)
                | MessageRequest::FileContainingSymbol(name)
                | MessageRequest::AllExtensionNumbersOfType(name)
                | MessageRequest::ListServices(name) => crate::shown::name(name).into_owned(),
                MessageRequest::FileContainingExtension(extension) => format!(
                    "{} of {}",
                    extension.extension_number,
                    crate::shown::name(&extension.containing_type)
                ),
            };
            (NOT_FOUND, format!("`{what}` is not known here"))
        }),
    };
    let message = found.unwrap_or_else(|(error_code, error_message)| {
        MessageResponse::ErrorResponse(ErrorResponse {
            error_code,
            error_message,
        })
    });
    ServerReflectionResponse {
        valid_host: request.host.clone(),
        original_request: Some(request),
        message_response: Some(message),
    }
}

fn look_up(pool: &DescriptorPool, asked: &MessageRequest) -> Option<MessageResponse> {
    Some(match asked {
        MessageRequest::FileByFilename(name) => files(&pool.get_file_by_name(name)?),
        MessageRequest::FileContainingSymbol(symbol) => files(&file_of(pool, symbol)?),
        MessageRequest::FileContainingExtension(asked) => {
            let message = pool.get_message_by_name(&asked.containing_type)?;
            let number = u32::try_from(asked.extension_number).ok()?;
            files(&message.get_extension(number)?.parent_file())
        }
        MessageRequest::AllExtensionNumbersOfType(name) => {
            let message = pool.get_message_by_name(name)?;
            let numbers = message
                .extensions()
                .filter_map(|extension| i32::try_from(extension.number()).ok());
            MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                base_type_name: name.clone(),
                extension_number: numbers.collect(),
            })
        }
        MessageRequest::ListServices(_) => {
            let mut service: Vec<_> = pool
                .services()
                .map(|service| ServiceResponse {
                    name: service.full_name().to_owned(),
                })
                .collect();
            service.sort_by(|a, b| a.name.cmp(&b.name));
            MessageResponse::ListServicesResponse(ListServiceResponse { service })
        }
    })
}

/// The file that defines a name: a message, an enum, a service, or what is inside one.
fn file_of(pool: &DescriptorPool, symbol: &str) -> Option<FileDescriptor> {
    if let Some(file) = file_of_type(pool, symbol) {
        return Some(file);
    }
    let (parent, last) = symbol.rsplit_once('.')?;
    if let Some(message) = pool.get_message_by_name(parent)
        && (message.get_field_by_name(last).is_some()
            || message.oneofs().any(|oneof| oneof.name() == last))
    {
        return Some(message.parent_file());
    }
    if let Some(service) = pool.get_service_by_name(parent)
        && service.methods().any(|method| method.name() == last)
    {
        return Some(service.parent_file());
    }
    // A value's full name is that of its enum's neighbour, not of something in the enum.
    pool.all_enums()
        .find(|of| of.values().any(|value| value.full_name() == symbol))
        .map(|of| of.parent_file())
}

fn file_of_type(pool: &DescriptorPool, symbol: &str) -> Option<FileDescriptor> {
    let message = pool.get_message_by_name(symbol);
    message
        .map(|message| message.parent_file())
        .or_else(|| Some(pool.get_enum_by_name(symbol)?.parent_file()))
        .or_else(|| Some(pool.get_service_by_name(symbol)?.parent_file()))
        .or_else(|| Some(pool.get_extension_by_name(symbol)?.parent_file()))
}

/// The file, then what it imports: each once.
fn files(file: &FileDescriptor) -> MessageResponse {
    let mut all = vec![file.clone()];
    let mut at = 0;
    while let Some(next) = all.get(at) {
        for import in next.dependencies().collect::<Vec<_>>() {
            if !all.contains(&import) {
                all.push(import);
            }
        }
        at += 1;
    }
    MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
        file_descriptor_proto: all.iter().map(|file| file.encode_to_vec().into()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oip::proto::reflection::ExtensionRequest;

    fn ask(message: MessageRequest) -> MessageResponse {
        let answer = answer(ServerReflectionRequest {
            host: "h".to_owned(),
            message_request: Some(message),
        });
        assert_eq!(answer.valid_host, "h");
        answer.message_response.expect("always an answer")
    }

    fn file_count(message: MessageRequest) -> usize {
        match ask(message) {
            MessageResponse::FileDescriptorResponse(files) => files.file_descriptor_proto.len(),
            MessageResponse::ErrorResponse(error) => {
                assert_eq!(error.error_code, NOT_FOUND, "{error:?}");
                0
            }
            other => panic!("not files: {other:?}"),
        }
    }

    #[test]
    fn names_lead_to_their_files() {
        let symbol = |name: &str| MessageRequest::FileContainingSymbol(name.to_owned());
        for (name, files) in [
            ("inference.GRPCInferenceService", 2),
            ("inference.GRPCInferenceService.ModelInfer", 2),
            ("inference.ModelInferRequest.InferInputTensor", 2),
            ("inference.ModelInferRequest.id", 2),
            ("inference.InferParameter.parameter_choice", 2),
            ("inference.DataType", 1),
            ("inference.TYPE_FP32", 1),
            ("grpc.health.v1.Health", 1),
            ("grpc.reflection.v1alpha.ServerReflection", 1),
            ("inference.DataType.TYPE_FP32", 0),
            ("inference.GRPCInferenceService.Nope", 0),
            ("inference", 0),
            ("", 0),
        ] {
            assert_eq!(file_count(symbol(name)), files, "{name}");
        }
        let file = |name: &str| MessageRequest::FileByFilename(name.to_owned());
        assert_eq!(file_count(file("grpc_service.proto")), 2);
        assert_eq!(file_count(file("nope.proto")), 0);
    }

    #[test]
    fn there_are_services_and_no_extensions() {
        let MessageResponse::ListServicesResponse(list) =
            ask(MessageRequest::ListServices(String::new()))
        else {
            panic!("no list");
        };
        let names: Vec<_> = list.service.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "inference.GRPCInferenceService",
            ]
        );
        let numbers = |name: &str| ask(MessageRequest::AllExtensionNumbersOfType(name.to_owned()));
        assert!(matches!(
            numbers("inference.ModelConfig"),
            MessageResponse::AllExtensionNumbersResponse(all) if all.extension_number.is_empty()
        ));
        assert!(matches!(
            numbers("inference.Nope"),
            MessageResponse::ErrorResponse(_)
        ));
        let extension = MessageRequest::FileContainingExtension(ExtensionRequest {
            containing_type: "inference.ModelConfig".to_owned(),
            extension_number: -1,
        });
        assert_eq!(file_count(extension), 0);
        let nothing = answer(ServerReflectionRequest::default());
        assert!(matches!(
            nothing.message_response,
            Some(MessageResponse::ErrorResponse(error)) if error.error_code == INVALID_ARGUMENT
        ));
    }
}
