/// Reads the elements of a BYTES tensor from their wire form; `Err(())` once, where a length runs past the end.
#[derive(Debug, Clone)]
pub struct BytesElements<'a>(&'a [u8]);

impl<'a> BytesElements<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }
}

impl<'a> Iterator for BytesElements<'a> {
    type Item = Result<&'a [u8], ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let element = self.0.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        if let Some((element, rest)) = element {
            self.0 = rest;
            Some(Ok(element))
        } else {
            self.0 = &[];
            Some(Err(()))
        }
    }
}

/// Of data whose elements run past its end: the length that the last one claims, none when that is cut itself, and the
/// bytes there for it.
pub(super) fn cut_element(data: &[u8]) -> (Option<u32>, usize) {
    let mut rest = data;
    loop {
        let Some((length, after)) = rest.split_first_chunk::<4>() else {
            return (None, rest.len());
        };
        let length = u32::from_le_bytes(*length);
        let next = usize::try_from(length)
            .ok()
            .and_then(|length| after.get(length..));
        let Some(next) = next else {
            return (Some(length), after.len());
        };
        rest = next;
    }
}

/// Writes elements in the wire form; none when one is longer than a u32 can say.
pub fn encode_bytes_elements<E: AsRef<[u8]>>(
    elements: impl IntoIterator<Item = E>,
) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for element in elements {
        let element = element.as_ref();
        data.extend_from_slice(&u32::try_from(element.len()).ok()?.to_le_bytes());
        data.extend_from_slice(element);
    }
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_cut_is_noticed() {
        let data = encode_bytes_elements([&b"one"[..], b"", b"three"]).expect("short elements");
        let read: Result<Vec<_>, ()> = BytesElements::new(&data).collect();
        assert_eq!(read, Ok(vec![&b"one"[..], b"", b"three"]));
        for cut in 1..data.len() {
            let read: Result<Vec<_>, ()> = BytesElements::new(&data[..cut]).collect();
            // Cuts at element borders read as fewer elements, which the tensor's shape then contradicts.
            assert!(read.is_err() || matches!(cut, 7 | 11), "{cut}");
        }
    }
}
