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
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, JSON).expect("writes");
    Encoder::from_file(&path, tokens_max)
}

#[test]
fn texts_become_one_padded_batch() {
    let texts = ["Cotton tree flower", "", "kapok"].map(str::to_owned);
    let batch = encoder(8)
        .and_then(|encoder| encoder.encode_batch(&texts))
        .expect("encodes");
    assert_eq!((batch.rows, batch.columns, batch.tokens), (3, 5, 10));
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
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
}
