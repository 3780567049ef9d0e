//! What one source file defines and refers to, with paths resolved from the crate's root.

use crate::tokens::{Kind, Token, tokens};

/// A module or item, as the names on the way from the crate's root.
pub(crate) type Path = Vec<String>;

#[derive(Default)]
pub(crate) struct Source {
    /// Paths that begin with `crate`, `super` or `self`, from `use` declarations, code and attributes.
    pub(crate) references: Vec<Reference>,
    /// What `use` declarations bring into scope: name and full path. A path of another crate stands as it was written.
    pub(crate) imports: Vec<(String, Path)>,
    /// The names of all types and traits that are defined.
    pub(crate) types: Vec<String>,
    /// The names of all macros that are defined: to other modules, those of them that are exported are in the crate's
    /// root.
    pub(crate) macros: Vec<String>,
    /// The types of all `impl` blocks without a trait.
    pub(crate) impls: Vec<InherentImpl>,
}

pub(crate) struct Reference {
    pub(crate) line: usize,
    pub(crate) path: Path,
}

pub(crate) struct InherentImpl {
    pub(crate) line: usize,
    pub(crate) type_name: String,
    /// Where the type is, if the block gives its path.
    pub(crate) path: Option<Path>,
}

/// Reads the file of a module.
pub(crate) fn read(module: &[String], text: &str) -> Source {
    let mut reader = Reader {
        tokens: tokens(text),
        position: 0,
        module: module.to_vec(),
        source: Source::default(),
    };
    reader.read_file();
    reader.source
}

/// The module that lies in a file, whose path is relative to the folder of the crate's root.
pub(crate) fn module_of(file: &str) -> Path {
    let mut names: Path = file
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    if matches!(names.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        names.pop();
    }
    names
}

struct Reader {
    tokens: Vec<Token>,
    position: usize,
    /// Where `self::` leads at this position.
    module: Path,
    source: Source,
}

impl Reader {
    fn at(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.position + ahead)
    }

    fn is_sign(&self, ahead: usize, sign: &str) -> bool {
        self.at(ahead).is_some_and(|token| token.is_sign(sign))
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        self.at(ahead)
            .filter(|token| token.kind == Kind::Word)
            .map(|token| token.text.as_str())
    }

    fn read_file(&mut self) {
        let mut depth = 0_usize;
        // The depths of braces at which modules written in this file end.
        let mut inline_modules = Vec::new();
        while let Some(token) = self.at(0).cloned() {
            match (token.kind, token.text.as_str()) {
                (Kind::Sign, "{") => depth += 1,
                (Kind::Sign, "}") => {
                    depth = depth.saturating_sub(1);
                    if inline_modules.last() == Some(&depth) {
                        inline_modules.pop();
                        self.module.pop();
                    }
                }
                (Kind::Word, "mod") if self.is_sign(2, "{") => {
                    let name = self.word(1).expect("a module has a name").to_owned();
                    self.module.push(name);
                    inline_modules.push(depth);
                    self.position += 1;
                }
                (Kind::Word, "use") if !self.is_sign(1, "<") => {
                    self.position += 1;
                    self.read_use_tree(&[], token.line);
                    continue;
                }
                (Kind::Word, "struct" | "enum" | "union" | "trait") => {
                    if let Some(name) = self.word(1).map(str::to_owned) {
                        self.source.types.push(name);
                    }
                }
                (Kind::Word, "macro_rules") => {
                    if let Some(name) = self.word(2).map(str::to_owned) {
                        self.source.macros.push(name);
                    }
                }
                (Kind::Word, "impl") if self.begins_an_item() => {
                    self.read_impl();
                    continue;
                }
                (Kind::Word, "crate" | "super" | "self") if self.is_sign(1, "::") => {
                    let path = self.read_path();
                    self.refer(token.line, &path);
                    continue;
                }
                // `#[serde(with = "crate::…")]`
                (Kind::Text, _) if self.is_value_of_an_attribute() => self.read_quoted_path(&token),
                _ => {}
            }
            self.position += 1;
        }
    }

    /// Whether `impl` at this position begins a block, and is not a part of a type.
    fn begins_an_item(&self) -> bool {
        let Some(before) = self.position.checked_sub(1).map(|before| &self.tokens[before]) else {
            return true;
        };
        before.is_word("unsafe") || ["{", "}", ";", "]"].iter().any(|sign| before.is_sign(sign))
    }

    fn is_value_of_an_attribute(&self) -> bool {
        self.position >= 2
            && self.tokens[self.position - 1].is_sign("=")
            && self.tokens[self.position - 2].kind == Kind::Word
            && !self.tokens[self.position - 2].is_word("doc")
    }

    fn read_quoted_path(&mut self, text: &Token) {
        let path: Path = text.text.split("::").map(str::to_owned).collect();
        if path.len() > 1 && matches!(path[0].as_str(), "crate" | "super" | "self") {
            self.refer(text.line, &path);
        }
    }

    /// Names joined by `::`; ends behind them.
    fn read_path(&mut self) -> Path {
        let mut path = Vec::new();
        while let Some(name) = self.word(0) {
            path.push(name.to_owned());
            self.position += 1;
            if !self.is_sign(0, "::") || self.at(1).is_none_or(|next| next.kind != Kind::Word) {
                break;
            }
            self.position += 1;
        }
        path
    }

    fn resolve(&self, path: &[String]) -> Option<Path> {
        if !matches!(path.first().map(String::as_str), Some("crate" | "super" | "self")) {
            return None;
        }
        let mut resolved = self.module.clone();
        for name in path {
            match name.as_str() {
                "crate" => resolved.clear(),
                "super" => {
                    resolved.pop();
                }
                "self" => {}
                _ => resolved.push(name.clone()),
            }
        }
        Some(resolved)
    }

    fn refer(&mut self, line: usize, path: &[String]) {
        if let Some(path) = self.resolve(path) {
            self.source.references.push(Reference { line, path });
        }
    }

    /// One branch of a `use` declaration, and all below it.
    fn read_use_tree(&mut self, prefix: &[String], line: usize) {
        let line = self.at(0).map_or(line, |token| token.line);
        let mut path = prefix.to_vec();
        loop {
            if self.is_sign(0, "{") {
                self.position += 1;
                while self.at(0).is_some() && !self.is_sign(0, "}") {
                    self.read_use_tree(&path, line);
                    if self.is_sign(0, ",") {
                        self.position += 1;
                    }
                }
                self.position += 1;
                return;
            }
            if let Some(name) = self.word(0) {
                path.push(name.to_owned());
            } else if self.is_sign(0, "*") {
                path.push("*".to_owned());
            } else if !self.is_sign(0, "::") {
                // A macro's variable; whatever it is, go on.
                self.position += 1;
                return;
            }
            if !self.is_sign(0, "::") {
                self.position += 1;
            }
            if !self.is_sign(0, "::") {
                break;
            }
            self.position += 1;
        }
        let mut name = path
            .iter()
            .rfind(|name| *name != "self")
            .cloned()
            .unwrap_or_default();
        if self.word(0) == Some("as") {
            name = self.word(1).unwrap_or("_").to_owned();
            self.position += 2;
        }
        self.refer(line, &path);
        let path = self.resolve(&path).unwrap_or(path);
        self.source.imports.push((name, path));
    }

    /// The head of an `impl` block; ends before what may contain references itself.
    fn read_impl(&mut self) {
        let line = self.tokens[self.position].line;
        self.position += 1;
        let start = self.position;
        let mut angles = 0_usize;
        let mut has_trait = false;
        let mut type_starts = start;
        while let Some(token) = self.at(0) {
            match token.text.as_str() {
                "<" if token.kind == Kind::Sign => angles += 1,
                ">" if token.kind == Kind::Sign => {
                    angles = angles.saturating_sub(1);
                    // Behind the parameters of the block.
                    if angles == 0 && self.tokens[start].is_sign("<") && type_starts == start {
                        type_starts = self.position + 1;
                    }
                }
                "{" if token.kind == Kind::Sign && angles == 0 => break,
                "where" if token.kind == Kind::Word => break,
                "for" if angles == 0 && token.kind == Kind::Word => has_trait = true,
                _ => {}
            }
            self.position += 1;
        }
        let end = self.position;
        if !has_trait {
            self.position = type_starts;
            if self.word(0) == Some("dyn") {
                self.position += 1;
            }
            let path = self.read_path();
            if let Some(type_name) = path.last().cloned() {
                let path = self.resolve(&path);
                self.source.impls.push(InherentImpl {
                    line,
                    type_name,
                    path,
                });
            }
        }
        // The head may refer to something, too.
        self.position = start;
        while self.position < end {
            let token = &self.tokens[self.position];
            if matches!(token.text.as_str(), "crate" | "super" | "self") && self.is_sign(1, "::") {
                let line = token.line;
                let path = self.read_path();
                self.refer(line, &path);
            } else {
                self.position += 1;
            }
        }
    }
}
