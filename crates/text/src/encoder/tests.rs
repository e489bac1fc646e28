use super::*;

/// A word-level tokenizer with BERT's frame; its own truncation and padding are there to be ignored.
const JSON: &str = r#"{
  "version": "1.0",
  "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
  "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
              "pad_id": 4, "pad_type_id": 0, "pad_token": "[PAD]"},
  "added_tokens": [],
  "normalizer": {"type": "Lowercase"},
  "pre_tokenizer": {"type": "Whitespace"},
  "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
  "decoder": null,
  "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab":
    {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "cotton": 3, "[PAD]": 4, "tree": 5, "flower": 6}}
}"#;

fn encoder(tokens_max: usize) -> Result<Encoder, Error> {
    encoder_of(JSON, tokens_max)
}

fn encoder_of(json: &str, tokens_max: usize) -> Result<Encoder, Error> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json).expect("writes");
    Encoder::from_file(&path, tokens_max)
}

#[test]
fn texts_become_one_padded_batch() {
    let texts = ["Cotton tree flower", "", "kapok"].map(str::to_owned);
    let encoder = encoder(8).expect("loads");
    let sequences = texts.map(|text| encoder.encode(&text).expect("encodes"));
    let batch = crate::Batch::pad(&sequences, 0, encoder.pad_id());
    assert_eq!((batch.rows, batch.columns), (3, 5));
    assert_eq!(
        batch.input_ids,
        [1, 3, 5, 6, 2, 1, 2, 4, 4, 4, 1, 0, 2, 4, 4]
    );
    assert_eq!(
        batch.attention_mask,
        [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0]
    );
}

#[test]
fn a_long_text_is_cut_before_its_end_token() {
    let sequence = encoder(4)
        .and_then(|encoder| encoder.encode("tree tree tree tree tree"))
        .expect("encodes");
    assert_eq!(sequence.ids, [1, 5, 5, 2]);
}

#[test]
fn a_text_far_beyond_what_is_kept_is_refused_before_it_is_tokenised() {
    for (tokens_max, bytes_max) in [(4, 64 << 10), (2048, 128 << 10)] {
        let encoder = encoder(tokens_max).expect("loads");
        let most = " ".repeat(bytes_max);
        assert_eq!(encoder.encode(&most).map(|found| found.len()), Ok(2));
        let bytes = bytes_max + 1;
        assert_eq!(
            encoder.encode(&" ".repeat(bytes)),
            Err(Error::TooLarge { bytes, bytes_max })
        );
    }
}

#[test]
fn a_text_without_tokens_is_refused() {
    let frame = r#"{"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}"#;
    let bare = JSON.replace(frame, "null");
    let encoder = encoder_of(&bare, 4).expect("loads");
    assert_eq!(encoder.encode("tree").expect("encodes").ids, [5]);
    for text in ["", " ", "\n\t"] {
        assert_eq!(encoder.encode(text), Err(Error::Empty), "{text:?}");
    }
}

#[test]
fn a_limit_without_room_for_special_tokens_is_refused() {
    for tokens_max in [0, 1, 2] {
        let refused = encoder(tokens_max).expect_err("no room");
        assert_eq!(refused, Error::TooFewTokens { tokens_max });
    }
}

#[test]
fn given_token_ids_are_checked_and_kept() {
    let encoder = encoder(4).expect("loads");
    for (ids, expected) in [
        (&[1, 5, 2][..], Ok(vec![1, 5, 2])),
        (&[], Err(Error::Empty)),
        (
            &[1; 5],
            Err(Error::TooLong {
                tokens: 5,
                tokens_max: 4,
            }),
        ),
        (
            &[1, 7],
            Err(Error::UnknownToken {
                id: 7,
                vocabulary: 7,
            }),
        ),
    ] {
        let found = encoder.sequence(ids).map(|sequence| sequence.ids);
        assert_eq!(found, expected, "{ids:?}");
    }
}

#[test]
fn a_broken_file_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tokenizer.json");
    for content in [None, Some("{\"version\": 1"), Some("null")] {
        if let Some(content) = content {
            std::fs::write(&path, content).expect("writes");
        }
        let error = Encoder::from_file(&path, 8).expect_err("broken");
        let error = error.to_string();
        assert!(error.contains("`tokenizer.json`"), "{error}");
        assert!(!error.contains('/'), "{error}");
    }
}
