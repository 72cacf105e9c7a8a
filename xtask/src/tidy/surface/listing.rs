//! The surface as text: each item that can be named from outside, with its signature.

use std::{collections::HashSet, fmt};

use syn::{
    Attribute, Fields, GenericArgument, ImplItem, Item, ItemImpl, PathArguments, ReturnType, Signature,
    TraitItem, Type, Visibility, spanned::Spanned,
};

use super::super::model::{Crate, Meaning, attributes, declared, is_conditional, is_hidden, leaves};

/// All of a crate's surface, in order of the names.
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
}

/// One item.
pub(super) struct Entry {
    /// Its path within the crate.
    pub(super) path: String,
    is_type: bool,
    /// It is of another crate.
    is_from_elsewhere: bool,
    /// A caller may match it or write it out, without anything more.
    pub(super) is_exhaustive: bool,
    /// What returns a future, itself or its methods: names and docs.
    pub(super) futures: Vec<(String, String)>,
    lines: Vec<String>,
}

impl Listing {
    pub(super) fn of(krate: &Crate) -> Self {
        let mut named = Vec::new();
        visit(krate, 0, "", &mut named);
        let listed: Vec<Meaning> = named.iter().map(|(_, meaning)| meaning.clone()).collect();
        let impls = impls(krate);
        let mut seen = HashSet::new();
        let mut entries: Vec<Entry> = (named.into_iter())
            .filter(|(path, meaning)| seen.insert((path.clone(), format!("{meaning:?}"))))
            .map(|(path, meaning)| Render { krate, listed: &listed, impls: &impls }.entry(path, &meaning))
            .collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self { entries }
    }

    /// Those that are defined here.
    pub(super) fn own_types(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_type && !entry.is_from_elsewhere).count()
    }

    /// All that can be named through this crate.
    pub(super) fn types(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_type).count()
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {} public types, {} of them defined here.", self.types(), self.own_types())?;
        writeln!(f, "# Written by `cargo xtask tidy --bless`.")?;
        for entry in &self.entries {
            writeln!(f)?;
            for line in &entry.lines {
                writeln!(f, "{line}")?;
            }
        }
        Ok(())
    }
}

/// Everything that can be named from outside, by path.
fn visit(krate: &Crate, module: usize, prefix: &str, named: &mut Vec<(String, Meaning)>) {
    for (i, item) in krate.modules[module].items.iter().enumerate() {
        if is_hidden(attributes(item)) {
            continue;
        }
        match item {
            Item::Mod(inner) if is_public(&inner.vis) => {
                let name = inner.ident.to_string();
                for meaning in krate.meanings_of(module, std::slice::from_ref(&name)) {
                    if let Meaning::Module(found) = meaning {
                        visit(krate, found, &format!("{prefix}{name}::"), named);
                    }
                }
            }
            Item::Use(brings) if is_public(&brings.vis) => {
                // What a glob is of must be a module.
                for (path, name) in leaves(&brings.tree) {
                    for meaning in krate.meanings_of(module, &path) {
                        bring(krate, prefix, name.as_deref(), meaning, named);
                    }
                }
            }
            item => {
                let name = public_name(item).map(|name| format!("{prefix}{name}"));
                named.extend(name.map(|name| (name, Meaning::Item(module, i))));
            }
        }
    }
}

fn bring(
    krate: &Crate,
    prefix: &str,
    name: Option<&str>,
    meaning: Meaning,
    named: &mut Vec<(String, Meaning)>,
) {
    let path = format!("{prefix}{}", name.unwrap_or("*"));
    match (meaning, name) {
        (Meaning::Module(found), None) => visit(krate, found, prefix, named),
        (Meaning::Module(found), Some(name)) => visit(krate, found, &format!("{prefix}{name}::"), named),
        (Meaning::Item(module, i), _) => {
            let item = &krate.modules[module].items[i];
            if !is_hidden(attributes(item)) && (matches!(item, Item::Macro(_)) || public_name(item).is_some())
            {
                named.push((path, Meaning::Item(module, i)));
            }
        }
        (other, _) => named.push((path, other)),
    }
}

/// One `impl` of the crate: for which item, from which module.
struct Impl<'a> {
    of: Vec<Meaning>,
    module: usize,
    item: &'a ItemImpl,
}

fn impls(krate: &Crate) -> Vec<Impl<'_>> {
    let items = krate
        .modules
        .iter()
        .enumerate()
        .flat_map(|(at, module)| module.items.iter().map(move |item| (at, item)));
    let found = items.filter_map(|(module, item)| {
        let Item::Impl(item) = item else { return None };
        let Type::Path(of) = &*item.self_ty else { return None };
        let of = krate.meanings_of(module, &names_of(&of.path));
        (!is_hidden(&item.attrs)).then_some(Impl { of, module, item })
    });
    found.collect()
}

/// Writes entries.
struct Render<'a> {
    krate: &'a Crate,
    listed: &'a [Meaning],
    impls: &'a [Impl<'a>],
}

impl Render<'_> {
    fn entry(&self, path: String, meaning: &Meaning) -> Entry {
        let (is_type, is_from_elsewhere, is_exhaustive) = (false, false, false);
        let (futures, lines) = (Vec::new(), Vec::new());
        let mut entry = Entry { path, is_type, is_from_elsewhere, is_exhaustive, futures, lines };
        match meaning {
            Meaning::Module(_) => {}
            Meaning::Elsewhere(from) => {
                entry.is_from_elsewhere = true;
                entry.is_type = from.rsplit("::").next().is_some_and(is_type_name);
                entry.lines.push(format!("{}: pub use {from}", entry.path));
            }
            Meaning::Item(module, i) => {
                let module = &self.krate.modules[*module];
                entry.item(&module.items[*i], &module.text);
            }
        }
        let impls = if entry.is_type { self.impls } else { &[] };
        for found in impls.iter().filter(|found| found.of.contains(meaning)) {
            let text = &self.krate.modules[found.module].text;
            match &found.item.trait_ {
                Some((_, of, _)) if self.names_private(found.module, of) => {}
                Some((_, of, _)) => entry.lines.push(format!("    impl {}", between(text, of, of))),
                None => self.methods(&mut entry, found.item, text),
            }
        }
        entry
    }

    fn methods(&self, entry: &mut Entry, item: &ItemImpl, text: &str) {
        for part in &item.items {
            match part {
                ImplItem::Fn(part) if is_shown(Some(&part.vis), &part.attrs) => {
                    entry.lines.push(format!("    {}", between(text, &part.vis, &part.sig)));
                    entry.futures.extend(future(&part.sig, &part.attrs, text));
                }
                ImplItem::Const(part) if is_shown(Some(&part.vis), &part.attrs) => {
                    entry.lines.push(format!("    {}", between(text, &part.vis, &part.ty)));
                }
                ImplItem::Macro(part) => {
                    let name = part.mac.path.get_ident().map(ToString::to_string).unwrap_or_default();
                    if let Some((expanded, text)) = self.krate.expand(&name) {
                        self.methods(entry, &expanded, &text);
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a trait, or what it is of, is an item of this crate that cannot be named from outside.
    fn names_private(&self, module: usize, path: &syn::Path) -> bool {
        let is_private = |path: &syn::Path| {
            let meanings = self.krate.meanings_of(module, &names_of(path));
            let is_ours = |meaning: &Meaning| matches!(meaning, Meaning::Item(..));
            meanings.iter().any(|meaning| is_ours(meaning) && !self.listed.contains(meaning))
        };
        let of = path.segments.iter().filter_map(|part| match &part.arguments {
            PathArguments::AngleBracketed(of) => Some(&of.args),
            PathArguments::None | PathArguments::Parenthesized(_) => None,
        });
        let mut of = of.flatten().filter_map(|argument| match argument {
            GenericArgument::Type(Type::Path(of)) => Some(&of.path),
            _ => None,
        });
        is_private(path) || of.any(is_private)
    }
}

impl Entry {
    fn item(&mut self, item: &Item, text: &str) {
        if let Item::Macro(_) = item {
            self.is_type = true;
            self.lines.push(format!("{}: made by {}", self.path, between(text, item, item)));
        }
        let (Some((vis, _)), Some(body_at)) = (declared(item), body_at(item)) else { return };
        let non_exhaustive = attributes(item).iter().any(is_non_exhaustive);
        let marked = if non_exhaustive { "#[non_exhaustive] " } else { "" };
        let head = one_line(&text[vis.span().byte_range().start..body_at]);
        self.lines.push(format!("{}: {marked}{head}{}", self.path, derived(attributes(item))));
        self.is_type = !matches!(item, Item::Const(_) | Item::Static(_) | Item::Fn(_));
        match item {
            Item::Struct(item) => {
                let fields = item.fields.iter().filter(|field| is_shown(Some(&field.vis), &field.attrs));
                let fields: Vec<_> =
                    fields.map(|field| format!("    {}", between(text, &field.vis, &field.ty))).collect();
                self.is_exhaustive =
                    !non_exhaustive && !fields.is_empty() && fields.len() == item.fields.len();
                self.lines.extend(fields);
            }
            Item::Enum(item) => {
                self.is_exhaustive = !non_exhaustive;
                let variants = item.variants.iter().filter(|variant| !is_hidden(&variant.attrs));
                self.lines.extend(variants.map(|variant| format!("    {}", variant_line(variant, text))));
            }
            Item::Trait(item) => item.items.iter().for_each(|part| self.trait_part(part, text)),
            Item::Fn(item) => self.futures.extend(future(&item.sig, &item.attrs, text)),
            _ => {}
        }
    }

    fn trait_part(&mut self, part: &TraitItem, text: &str) {
        let line = match part {
            TraitItem::Fn(part) if is_shown(None, &part.attrs) => {
                self.futures.extend(future(&part.sig, &part.attrs, text));
                between(text, &part.sig, &part.sig)
            }
            TraitItem::Type(part) if is_shown(None, &part.attrs) => {
                between(text, part, part).trim_end_matches(';').to_owned()
            }
            TraitItem::Const(part) if is_shown(None, &part.attrs) => {
                between(text, &part.const_token, &part.ty)
            }
            _ => return,
        };
        self.lines.push(format!("    {line}"));
    }
}

fn names_of(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|part| part.ident.to_string()).collect()
}

/// Where the part of an item begins that is no signature.
fn body_at(item: &Item) -> Option<usize> {
    let span = match item {
        Item::Struct(item) => match &item.fields {
            Fields::Named(fields) => fields.brace_token.span.open(),
            Fields::Unnamed(fields) => fields.paren_token.span.open(),
            Fields::Unit => item.semi_token?.span,
        },
        Item::Enum(item) => item.brace_token.span.open(),
        Item::Trait(item) => item.brace_token.span.open(),
        Item::Type(item) => item.semi_token.span,
        Item::Const(item) => item.eq_token.span,
        Item::Static(item) => item.eq_token.span,
        Item::Fn(item) => item.block.brace_token.span.open(),
        _ => return None,
    };
    Some(span.byte_range().start)
}

/// The text from the beginning of one part to the end of another, in one line.
fn between(text: &str, from: &impl Spanned, to: &impl Spanned) -> String {
    one_line(&text[from.span().byte_range().start..to.span().byte_range().end])
}

fn variant_line(variant: &syn::Variant, text: &str) -> String {
    let field = |field: &syn::Field| {
        let ty = one_line(&text[field.ty.span().byte_range()]);
        field.ident.as_ref().map_or_else(|| ty.clone(), |ident| format!("{ident}: {ty}"))
    };
    let fields: Vec<String> = variant.fields.iter().map(field).collect();
    let fields = fields.join(", ");
    match &variant.fields {
        Fields::Named(_) => format!("{} {{ {fields} }}", variant.ident),
        Fields::Unnamed(_) => format!("{}({fields})", variant.ident),
        Fields::Unit => variant.ident.to_string(),
    }
}

/// The name and the docs of a function that returns a future.
fn future(signature: &Signature, attributes: &[Attribute], text: &str) -> Option<(String, String)> {
    let returned = match &signature.output {
        ReturnType::Default => "",
        ReturnType::Type(_, of) => &text[of.span().byte_range()],
    };
    // A builder that takes a future returns itself.
    let is_boxed = returned.starts_with("BoxFuture") && signature.receiver().is_some();
    let is_future = signature.asyncness.is_some() || returned.contains("Future<") || is_boxed;
    let docs: Vec<String> = attributes.iter().filter_map(doc_text).collect();
    is_future.then(|| (signature.ident.to_string(), docs.join("\n")))
}

fn doc_text(attribute: &Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    let syn::Expr::Lit(literal) = &pair.value else { return None };
    let syn::Lit::Str(text) = &literal.lit else { return None };
    Some(text.value())
}

/// Whether it says that more may come. The crates of the workspace, which have the feature, match without a wildcard
/// arm, so that the compiler names each place that must decide about something new.
fn is_non_exhaustive(attribute: &Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return attribute.path().is_ident("non_exhaustive") };
    let words = list.tokens.to_string().replace(' ', "");
    list.path.is_ident("cfg_attr") && words == "not(feature=\"internals\"),non_exhaustive"
}

/// What an item derives, in the order of the source.
fn derived(attributes: &[Attribute]) -> String {
    let lists = attributes.iter().filter_map(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("derive") => Some(list.tokens.to_string()),
        _ => None,
    });
    let all: Vec<String> = lists.map(|list| list.replace(" ,", ",").replace(" :: ", "::")).collect();
    if all.is_empty() { String::new() } else { format!(" [{}]", all.join(", ")) }
}

fn public_name(item: &Item) -> Option<String> {
    declared(item).filter(|(vis, _)| is_public(vis)).map(|(_, name)| name)
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_shown(visibility: Option<&Visibility>, attributes: &[Attribute]) -> bool {
    visibility.is_none_or(is_public) && !is_hidden(attributes) && !is_conditional(attributes)
}

/// `CamelCase`, unlike functions and constants.
fn is_type_name(name: &str) -> bool {
    name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase)
}

/// Without comments and line breaks.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let spaced = [("( ", "("), (",)", ")"), (", )", ")"), ("< ", "<"), (", >", ">")];
    spaced.into_iter().fold(words.join(" "), |line, (from, to)| line.replace(from, to))
}
