//! A source file as one list of tokens, without comments.

use proc_macro2::{Delimiter, Literal, Spacing, TokenStream, TokenTree};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A keyword or an identifier, without the `r#` of a raw one.
    Word,
    /// `::`, `->`, or a single character.
    Sign,
    /// A string literal; the token's text is its contents.
    Text,
    /// Any other literal, or a lifetime.
    Other,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

impl Token {
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }

    pub(crate) fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }
}

/// All tokens of a source file; groups are flattened.
///
/// # Panics
///
/// If the source is not a sequence of Rust's tokens.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let stream: TokenStream = source.parse().expect("a source file consists of tokens");
    let mut tokens = Vec::new();
    flatten(stream, &mut tokens);
    tokens
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    let mut trees = stream.into_iter();
    while let Some(tree) = trees.next() {
        let line = tree.span().start().line;
        let mut push = |kind, text: &str| {
            let text = text.to_owned();
            tokens.push(Token { kind, text, line });
        };
        match tree {
            TokenTree::Ident(word) => push(Kind::Word, word.to_string().trim_start_matches("r#")),
            TokenTree::Literal(literal) => {
                let text = string_contents(&literal);
                push(
                    text.as_ref().map_or(Kind::Other, |_| Kind::Text),
                    &text.unwrap_or_default(),
                );
            }
            // The next token is the lifetime's name.
            TokenTree::Punct(sign) if sign.as_char() == '\'' => {
                trees.next();
                push(Kind::Other, "'");
            }
            TokenTree::Punct(sign) if sign.spacing() == Spacing::Joint && "-:".contains(sign.as_char()) => {
                let next = trees.next().expect("a joint sign has a successor").to_string();
                match sign.as_char() {
                    ':' if next == ":" => push(Kind::Sign, "::"),
                    '-' if next == ">" => push(Kind::Sign, "->"),
                    first => {
                        push(Kind::Sign, &first.to_string());
                        push(Kind::Sign, &next);
                    }
                }
            }
            TokenTree::Punct(sign) => push(Kind::Sign, &sign.as_char().to_string()),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::None => ("", ""),
                };
                push(Kind::Sign, open);
                flatten(group.stream(), tokens);
                let line = group.span_close().start().line;
                let text = close.to_owned();
                tokens.push(Token {
                    kind: Kind::Sign,
                    text,
                    line,
                });
            }
        }
    }
}

/// What stands between the quotes of a string literal.
fn string_contents(literal: &Literal) -> Option<String> {
    let text = literal.to_string();
    let inner = text.trim_start_matches(['r', 'b', '#']).trim_end_matches('#');
    Some(inner.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}
