//! MD5 (RFC 1321), for no more than telling whether a file is the one that its owner meant: forgeries are the business of
//! `[integrity]`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

const BLOCK_BYTES: usize = 64;

/// Each round's left rotations, four of them in turn.
const ROTATIONS: [[u32; 4]; 4] = [
    [7, 12, 17, 22],
    [5, 9, 14, 20],
    [4, 11, 16, 23],
    [6, 10, 15, 21],
];

/// The whole part of 2^32 times |sin(step)|, steps counted from 1.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
    0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
    0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
    0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
    0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

/// In small hex digits, as `md5sum` writes it.
pub(super) fn of_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sum = Sum::default();
    // A whole number of blocks.
    let mut chunk = vec![0; 1 << 18];
    loop {
        let filled = fill(&mut file, &mut chunk)?;
        let part = &chunk[..filled];
        if filled < chunk.len() {
            return Ok(sum.end(part));
        }
        sum.blocks(part);
    }
}

/// As many bytes as there are, up to the buffer's.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

struct Sum {
    words: [u32; 4],
    bytes: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            words: [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476],
            bytes: 0,
        }
    }
}

impl Sum {
    fn blocks(&mut self, bytes: &[u8]) {
        for block in bytes.chunks_exact(BLOCK_BYTES) {
            self.block(block);
            self.bytes = self.bytes.wrapping_add(BLOCK_BYTES as u64);
        }
    }

    /// `rest` is what follows the last whole chunk: it is filled up to whole blocks with 1, zeros and the length in bits.
    fn end(mut self, rest: &[u8]) -> String {
        let bits = (self.bytes.wrapping_add(rest.len() as u64)).wrapping_mul(8);
        let mut last = rest.to_vec();
        last.push(0x80);
        while last.len() % BLOCK_BYTES != BLOCK_BYTES - 8 {
            last.push(0);
        }
        last.extend(bits.to_le_bytes());
        self.blocks(&last);
        let mut text = String::with_capacity(32);
        for byte in self.words.iter().flat_map(|word| word.to_le_bytes()) {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "{byte:02x}");
        }
        text
    }

    fn block(&mut self, block: &[u8]) {
        let mut message = [0; 16];
        for (word, bytes) in message.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        let [mut a, mut b, mut c, mut d] = self.words;
        for (step, sine) in SINES.into_iter().enumerate() {
            let (mixed, word) = match step / 16 {
                0 => ((b & c) | (!b & d), step),
                1 => ((d & b) | (!d & c), 5 * step + 1),
                2 => (b ^ c ^ d, 3 * step + 5),
                _ => (c ^ (b | !d), 7 * step),
            };
            let sum = a
                .wrapping_add(mixed)
                .wrapping_add(sine)
                .wrapping_add(message[word % 16]);
            let rotated = sum.rotate_left(ROTATIONS[step / 16][step % 4]);
            (a, d, c, b) = (d, c, b, b.wrapping_add(rotated));
        }
        for (word, more) in self.words.iter_mut().zip([a, b, c, d]) {
            *word = word.wrapping_add(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_that_the_standard_lists_and_md5sum_prints() {
        let long = vec![b'a'; (1 << 18) + 1];
        let exact = vec![b'a'; 1 << 18];
        let digits = b"1234567890".repeat(8);
        let cases: [(&[u8], &str); 8] = [
            (b"", "d41d8cd98f00b204e9800998ecf8427e"),
            (b"a", "0cc175b9c0f1b6a831c399e269772661"),
            (b"abc", "900150983cd24fb0d6963f7d28e17f72"),
            (b"message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            (
                b"abcdefghijklmnopqrstuvwxyz",
                "c3fcd3d76192e4007dfb496cca67e13b",
            ),
            (&digits, "57edf4a22be3c955ac49da2e2107b67a"),
            (&exact, "c946b71bb69c07daf25470742c967e7c"),
            (&long, "0c98a26131b3826a3bd347b8cd65b0a2"),
        ];
        let folder = tempfile::tempdir().expect("a folder");
        for (bytes, expected) in cases {
            let file = folder.path().join("file");
            std::fs::write(&file, bytes).expect("written");
            assert_eq!(of_file(&file).expect("read"), expected, "{}", bytes.len());
        }
    }
}
