//! Rust's tokens, as far as paths, modules, definitions and `impl` blocks need them: comments are gone, literals cannot be mistaken
//! for code.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A word of the language or a name; without the `r#` of a raw one.
    Word,
    /// `::`, `->`, or a single character.
    Sign,
    /// A string; its text is what stands between the quotes.
    Text,
    /// A character, a lifetime or a number: of no interest, but it separates what stands around it.
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

/// All tokens of a source file.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        source: source.chars().collect(),
        position: 0,
        line: 1,
        tokens: Vec::new(),
    };
    while lexer.position < lexer.source.len() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer {
    source: Vec<char>,
    position: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.source.get(self.position + ahead).copied().unwrap_or('\0')
    }

    fn take(&mut self) -> char {
        let next = self.peek(0);
        self.position += 1;
        self.line += usize::from(next == '\n');
        next
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while self.position < self.source.len() && belongs(self.peek(0)) {
            text.push(self.take());
        }
        text
    }

    fn push(&mut self, kind: Kind, text: impl Into<String>, line: usize) {
        self.tokens.push(Token {
            kind,
            text: text.into(),
            line,
        });
    }

    fn step(&mut self) {
        let line = self.line;
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => {
                self.take_while(|next| next != '\n');
            }
            ('/', '*') => self.skip_block_comment(),
            ('"', _) => {
                let text = self.take_string();
                self.push(Kind::Text, text, line);
            }
            ('\'', _) => self.take_quote(line),
            (next, _) if next.is_whitespace() => {
                self.take();
            }
            (next, _) if next.is_ascii_digit() => {
                let text = self.take_while(is_name);
                self.push(Kind::Other, text, line);
            }
            (next, _) if is_name(next) => self.take_word(line),
            pair @ ((':', ':') | ('-', '>')) => {
                self.position += 2;
                self.push(Kind::Sign, format!("{}{}", pair.0, pair.1), line);
            }
            _ => {
                let sign = self.take();
                self.push(Kind::Sign, sign, line);
            }
        }
    }

    /// They nest.
    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        while self.position < self.source.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => {
                    depth += 1;
                    self.position += 2;
                }
                ('*', '/') => {
                    depth -= 1;
                    self.position += 2;
                }
                _ => {
                    self.take();
                }
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn take_string(&mut self) -> String {
        self.take();
        let mut text = String::new();
        while self.position < self.source.len() {
            match self.take() {
                '"' => break,
                '\\' => {
                    self.take();
                }
                other => text.push(other),
            }
        }
        text
    }

    /// A character or a lifetime.
    fn take_quote(&mut self, line: usize) {
        self.take();
        if self.peek(0) == '\\' {
            self.take();
            self.take();
            self.take_while(|next| next != '\'');
            self.take();
        } else if self.peek(1) == '\'' {
            self.take();
            self.take();
        } else {
            self.take_while(is_name);
        }
        self.push(Kind::Other, "'", line);
    }

    /// A word, or a raw string, which begins like one.
    fn take_word(&mut self, line: usize) {
        let word = self.take_while(is_name);
        let hashes = self.source[self.position..]
            .iter()
            .take_while(|&&next| next == '#')
            .count();
        if matches!(word.as_str(), "r" | "br" | "cr") && self.peek(hashes) == '"' {
            self.position += hashes + 1;
            let end: Vec<char> = std::iter::once('"')
                .chain(std::iter::repeat_n('#', hashes))
                .collect();
            let mut text = String::new();
            while self.position < self.source.len() && !self.source[self.position..].starts_with(&end) {
                text.push(self.take());
            }
            self.position += end.len();
            self.push(Kind::Text, text, line);
        } else if word == "r" && hashes == 1 {
            self.take();
            let name = self.take_while(is_name);
            self.push(Kind::Word, name, line);
        } else {
            self.push(Kind::Word, word, line);
        }
    }
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[test]
fn comments_and_literals_are_not_code() {
    let source = r###"
        // crate::a
        /* crate::b /* crate::c */ crate::d */
        let x = ("crate::e \" crate::f", r#"crate::"g"#, br"crate::h", 'c', '\'', '"', b'\\', &'static r#type);
    "###;
    let words: Vec<String> = tokens(source)
        .into_iter()
        .filter(|token| token.kind == Kind::Word)
        .map(|token| token.text)
        .collect();
    assert_eq!(words, ["let", "x", "b", "type"]);
}

#[test]
fn tokens_know_their_line() {
    let lines: Vec<usize> = tokens("a\n/* \n */ b \"\n\" c::d")
        .iter()
        .map(|token| token.line)
        .collect();
    assert_eq!(lines, [1, 3, 3, 4, 4, 4]);
}
