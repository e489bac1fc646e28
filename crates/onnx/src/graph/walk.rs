//! Walks a protobuf file field by field and steps over what nobody asked for, so that describing a model of gigabytes
//! reads kilobytes.

use std::io::{BufReader, Read, Seek};

use super::{Error, Found};

/// Field numbers of `ModelProto`, `GraphProto`, `SparseTensorProto` and `TensorProto`.
const MODEL_GRAPH: u64 = 7;
const GRAPH_INITIALIZER: u64 = 5;
const GRAPH_INPUT: u64 = 11;
const GRAPH_OUTPUT: u64 = 12;
const GRAPH_SPARSE_INITIALIZER: u64 = 15;
const SPARSE_TENSOR_VALUES: u64 = 1;
const TENSOR_NAME: u64 = 8;

/// A name or a type of an input is far below this; more is an attack on memory.
const TAKEN_BYTES_MAX: u64 = 1 << 20;

pub(super) struct Walker<R> {
    reader: BufReader<R>,
    position: u64,
    end: u64,
}

impl<R: Read + Seek> Walker<R> {
    pub(super) fn new(reader: R, length: u64) -> Self {
        Self {
            reader: BufReader::new(reader),
            position: 0,
            end: length,
        }
    }

    pub(super) fn model(mut self) -> Result<Found, Error> {
        let mut found = Found::default();
        let end = self.end;
        while let Some((number, field_end)) = self.message_field(end)? {
            if number == MODEL_GRAPH {
                found.graphs += 1;
                self.graph(field_end, &mut found)?;
            }
            self.skip_to(field_end)?;
        }
        Ok(found)
    }

    fn graph(&mut self, end: u64, found: &mut Found) -> Result<(), Error> {
        while let Some((number, field_end)) = self.message_field(end)? {
            match number {
                GRAPH_INPUT => found.inputs.push(self.take_to(field_end)?),
                GRAPH_OUTPUT => found.outputs.push(self.take_to(field_end)?),
                GRAPH_INITIALIZER => self.initializer(field_end, found)?,
                GRAPH_SPARSE_INITIALIZER => self.sparse_initializer(field_end, found)?,
                _ => {}
            }
            self.skip_to(field_end)?;
        }
        Ok(())
    }

    fn sparse_initializer(&mut self, end: u64, found: &mut Found) -> Result<(), Error> {
        while let Some((number, field_end)) = self.message_field(end)? {
            if number == SPARSE_TENSOR_VALUES {
                self.initializer(field_end, found)?;
            }
            self.skip_to(field_end)?;
        }
        Ok(())
    }

    fn initializer(&mut self, end: u64, found: &mut Found) -> Result<(), Error> {
        while let Some((number, field_end)) = self.message_field(end)? {
            if number == TENSOR_NAME {
                let name = String::from_utf8(self.take_to(field_end)?)
                    .map_err(|_| broken("an initializer's name is not UTF-8"))?;
                found.initializers.insert(name);
            }
            self.skip_to(field_end)?;
        }
        Ok(())
    }

    /// The next length-delimited field before `end`: its number and where it ends; other fields are stepped over.
    fn message_field(&mut self, end: u64) -> Result<Option<(u64, u64)>, Error> {
        while self.position < end {
            let key = self.varint(end)?;
            let (number, wire_type) = (key >> 3, key & 7);
            let length = match wire_type {
                0 => {
                    self.varint(end)?;
                    0
                }
                1 => 8,
                2 => self.varint(end)?,
                5 => 4,
                _ => return Err(broken("a field of an unknown wire type")),
            };
            let field_end = self
                .position
                .checked_add(length)
                .filter(|field_end| *field_end <= end)
                .ok_or_else(|| broken("a field runs past the end of its message"))?;
            if wire_type == 2 {
                return Ok(Some((number, field_end)));
            }
            self.skip_to(field_end)?;
        }
        Ok(None)
    }

    fn varint(&mut self, end: u64) -> Result<u64, Error> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            if self.position >= end {
                return Err(broken("a number is cut off"));
            }
            let mut byte = [0];
            self.reader.read_exact(&mut byte)?;
            self.position += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(broken("a number of more than 64 bits"))
    }

    fn take_to(&mut self, end: u64) -> Result<Vec<u8>, Error> {
        let length = end - self.position;
        if length > TAKEN_BYTES_MAX {
            return Err(broken("a name or type of more than 1 MiB"));
        }
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(length).read_to_end(&mut bytes)?;
        if u64::try_from(read) != Ok(length) {
            return Err(broken("the file ends in the middle of a field"));
        }
        self.position = end;
        Ok(bytes)
    }

    fn skip_to(&mut self, end: u64) -> Result<(), Error> {
        let step = i64::try_from(end - self.position)
            .map_err(|_| broken("a field runs past the end of its message"))?;
        self.reader.seek_relative(step)?;
        self.position = end;
        Ok(())
    }
}

fn broken(reason: &str) -> Error {
    Error::Broken(reason.to_owned())
}
