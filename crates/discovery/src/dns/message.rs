//! Questions and answers as RFC 1035 writes them.

use std::net::IpAddr;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
    Srv,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
            Self::Srv => 33,
        }
    }
}

const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;

/// What we take over UDP without fragments on any path (DNS flag day 2020).
pub(super) const UDP_BYTES_MAX: usize = 1232;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    Service {
        priority: u16,
        port: u16,
        /// Without the closing dot; empty means that there is no such service.
        target: String,
    },
}

/// The part of an answer that matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: u16,
    pub(super) truncated: bool,
    pub(super) code: u8,
    /// Of the question that it answers, in lower case.
    pub(super) name: String,
    pub(super) kind: u16,
    /// Each with the seconds for which it holds; aliases on the way count with theirs.
    pub(super) records: Vec<(u32, Option<Data>)>,
}

impl Message {
    /// Whether it answers this question.
    pub(super) fn answers(&self, id: u16, name: &str, kind: Kind) -> bool {
        self.id == id
            && self.kind == kind.number()
            && self.name.eq_ignore_ascii_case(name.trim_end_matches('.'))
    }
}

/// A question that may be answered with help of other servers; none if the name cannot be written.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    out.extend(id.to_be_bytes());
    // Recursion desired; one question, one additional record.
    out.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 1]);
    let name = name.trim_end_matches('.');
    if name.is_empty() || name.len() > 253 {
        return None;
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if !(1..=63).contains(&length) {
            return None;
        }
        out.push(length);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(kind.number().to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    // RFC 6891: how much we take over UDP.
    out.push(0);
    out.extend(TYPE_OPT.to_be_bytes());
    out.extend(u16::try_from(UDP_BYTES_MAX).unwrap_or(512).to_be_bytes());
    out.extend([0; 6]);
    Some(out)
}

/// None if it is no answer.
pub(super) fn answer(data: &[u8]) -> Option<Message> {
    let mut reader = Reading { data, at: 0 };
    let id = reader.u16()?;
    let flags = reader.u16()?;
    let questions = reader.u16()?;
    let answers = reader.u16()?;
    reader.skip(4)?;
    if flags & 0x8000 == 0 || questions != 1 {
        return None;
    }
    let name = reader.name()?;
    let kind = reader.u16()?;
    reader.skip(2)?;
    let mut message = Message {
        id,
        truncated: flags & 0x0200 != 0,
        code: u8::try_from(flags & 0xf).unwrap_or_default(),
        name,
        kind,
        records: Vec::new(),
    };
    for _ in 0..answers {
        match reader.record(kind) {
            Some(record) => message.records.push(record),
            // What is cut off is asked for again over TCP.
            None if message.truncated => break,
            None => return None,
        }
    }
    Some(message)
}

struct Reading<'a> {
    data: &'a [u8],
    at: usize,
}

impl Reading<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let end = self.at.checked_add(N)?;
        let bytes = self.data.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(bytes)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        let end = self.at.checked_add(count)?;
        (end <= self.data.len()).then(|| self.at = end)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    /// A name, with its closing dot left out. A pointer leads to an earlier place only, so there is no circle.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut at = self.at;
        let mut end = None;
        let mut border = self.at;
        loop {
            let length = usize::from(*self.data.get(at)?);
            match length >> 6 {
                0 if length == 0 => {
                    self.at = end.unwrap_or(at + 1);
                    return Some(name);
                }
                0 => {
                    let label = self.data.get(at + 1..at + 1 + length)?;
                    if name.len() + length > 254 {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    for byte in label {
                        // What no host name has would mean something else in a URL.
                        let legal = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                        name.push(legal.then(|| char::from(byte.to_ascii_lowercase()))?);
                    }
                    at += 1 + length;
                }
                3 => {
                    let low = usize::from(*self.data.get(at + 1)?);
                    let target = (length & 0x3f) << 8 | low;
                    if target >= border {
                        return None;
                    }
                    end.get_or_insert(at + 2);
                    (at, border) = (target, target);
                }
                _ => return None,
            }
        }
    }

    /// Seconds, and what it holds if it is of the kind that was asked for.
    fn record(&mut self, asked: u16) -> Option<(u32, Option<Data>)> {
        self.name()?;
        let kind = self.u16()?;
        let class = self.u16()?;
        let ttl = u32::from_be_bytes(self.take()?);
        let length = usize::from(self.u16()?);
        let end = self.at.checked_add(length)?;
        if end > self.data.len() {
            return None;
        }
        let data = if kind == asked && class == CLASS_IN {
            Some(self.data(kind, length)?)
        } else {
            None
        };
        self.at = end;
        Some((ttl, data))
    }

    fn data(&mut self, kind: u16, length: usize) -> Option<Data> {
        match (kind, length) {
            (1, 4) => self.take::<4>().map(|ip| Data::Address(ip.into())),
            (28, 16) => self.take::<16>().map(|ip| Data::Address(ip.into())),
            (33, 7..) => {
                let priority = self.u16()?;
                let _weight = self.u16()?;
                let port = self.u16()?;
                let target = self.name()?;
                Some(Data::Service {
                    priority,
                    port,
                    target,
                })
            }
            _ => None,
        }
    }
}

/// For the fuzzer: whatever a name server sends, an answer or none.
pub fn fuzz_dns_answer(data: &[u8]) {
    if let Some(message) = answer(data) {
        assert!(message.name.len() <= 254, "longer than any name");
        assert!(
            message.records.len() <= usize::from(u16::MAX),
            "more than were announced"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer whose records point to the question's name.
    fn message(flags: u16, records: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut out = question(7, "llm.test", Kind::A).expect("a name");
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        out[6..8].copy_from_slice(&u16::try_from(records.len()).expect("few").to_be_bytes());
        out[10..12].copy_from_slice(&[0, 0]);
        out.truncate(out.len() - 11);
        for (kind, ttl, data) in records {
            out.extend([0xc0, 12]);
            out.extend(kind.to_be_bytes());
            out.extend([0, 1]);
            out.extend(ttl.to_be_bytes());
            out.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
            out.extend(*data);
        }
        out
    }

    #[test]
    fn addresses_and_aliases_are_read() {
        let alias: &[u8] = &[1, b'x', 0xc0, 12];
        let read =
            answer(&message(0x8180, &[(5, 9, alias), (1, 30, &[10, 0, 0, 1])])).expect("an answer");
        assert!(read.answers(7, "LLM.test.", Kind::A) && !read.answers(8, "llm.test", Kind::A));
        let ip = Data::Address(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(read.records, [(9, None), (30, Some(ip))]);
    }

    #[test]
    fn what_lies_is_refused() {
        let good = message(0x8180, &[(1, 30, &[10, 0, 0, 1])]);
        for end in 0..good.len() {
            assert_eq!(answer(&good[..end]), None, "cut after {end}");
        }
        assert!(answer(&message(0x0100, &[])).is_none(), "a question");
        assert!(
            answer(&message(0x8180, &[(1, 30, &[10, 0, 1])])).is_none(),
            "three bytes"
        );
        let mut circle = good.clone();
        let at = circle.len() - 16;
        circle[at..at + 2]
            .copy_from_slice(&u16::try_from(0xc000 | at).expect("small").to_be_bytes());
        assert!(answer(&circle).is_none(), "a name that points to itself");
        let cut = message(0x8380, &[(1, 30, &[10, 0, 0, 1])]);
        let cut = answer(&cut[..cut.len() - 2]).expect("cut, and says so");
        assert!(cut.truncated && cut.records.is_empty());
    }

    #[test]
    fn names_that_cannot_be_written_are_not_asked_for() {
        for name in ["", ".", "a..b", &"x".repeat(64), &"a.".repeat(130)] {
            assert_eq!(question(1, name, Kind::A), None, "{name}");
        }
        assert!(question(1, "_http._tcp.llm.test.", Kind::Srv).is_some());
    }

    #[test]
    fn answers_of_name_servers() {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/dns_answer");
        let mut seeds = 0;
        for entry in std::fs::read_dir(folder).expect("the corpus is part of the repository") {
            let data = std::fs::read(entry.expect("readable").path()).expect("readable");
            for cut in 0..=data.len() {
                fuzz_dns_answer(&data[..cut]);
                fuzz_dns_answer(&data[cut..]);
            }
            seeds += 1;
        }
        assert!(seeds >= 20, "only {seeds} seeds");
    }
}
