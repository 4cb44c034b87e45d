package identity

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// fields says what to do with the value of each key that a mapping may have.
type fields map[string]func(*yaml.Node)

// document returns the root of the only document, or nil and a fault.
func (p *usersParser) document(data []byte) *yaml.Node {
	if len(data) > maxFileSize {
		p.faults.add(0, "", "the file is larger than %d MiB", maxFileSize>>20)
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		p.syntax(err)
		return nil
	}
	var doc, second yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		p.faults.add(0, usersForm, "the file is empty")
		return nil
	case err != nil:
		p.syntax(err)
		return nil
	}
	switch err := loader.Load(&second); {
	case err == nil:
		p.faults.add(second.Line, "remove what follows ---", "the file holds more than one YAML document")
		return nil
	case !errors.Is(err, io.EOF):
		p.syntax(err)
		return nil
	}
	if p.references(&doc) {
		return nil
	}
	return doc.Content[0]
}

// syntax does not pass on what the composer says: it quotes the file.
func (p *usersParser) syntax(err error) {
	e, ok := errors.AsType[*yaml.LoadError](err)
	switch {
	case !ok:
		p.faults.add(0, "", "the file is no YAML")
	case e.Stage == yaml.ComposerStage:
		p.faults.add(e.Mark.Line, "write out what they stand for", "anchors and aliases (& and *) are refused")
	case e.ContextMsg != "":
		p.faults.add(e.Mark.Line, "", "the file is no YAML: %s, %s", e.ContextMsg, e.Message)
	default:
		p.faults.add(e.Mark.Line, "", "the file is no YAML: %s", e.Message)
	}
}

// references finds anchors and aliases: a rule says what it says in its own place,
// and nothing small becomes large.
func (p *usersParser) references(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		p.faults.add(n.Line, "write out what they stand for; a pattern that starts with * needs its kind and quotes",
			"anchors and aliases (& and *) are refused")
		return true
	}
	return slices.ContainsFunc(n.Content, p.references)
}

// mapping calls the function of each key; every other key is a fault. It reports
// whether n is a mapping.
func (p *usersParser) mapping(n *yaml.Node, what, cure string, known fields) bool {
	if n.Kind != yaml.MappingNode {
		p.faults.add(n.Line, cure, "%s is %s, not a mapping of keys to values", what, describe(n))
		return false
	}
	lines := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		read := known[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || read == nil:
			p.faults.add(key.Line, cure, "%s: unknown key %q", what, cut(key.Value, 40))
		case lines[key.Value] > 0:
			p.faults.add(key.Line, "remove one of the two", "%s: %s is there twice, first in line %d", what, key.Value, lines[key.Value])
		default:
			lines[key.Value] = key.Line
			read(value)
		}
	}
	return true
}

// sequence returns the items of a list that is not empty, or nil and a fault.
func (p *usersParser) sequence(n *yaml.Node, what, ifEmpty string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		p.faults.add(n.Line, "write [ONE, ANOTHER]", "%s is %s, not a list", what, describe(n))
		return nil
	}
	if len(n.Content) == 0 {
		p.faults.add(n.Line, ifEmpty, "%s is empty", what)
	}
	return n.Content
}

// text returns a string that is not empty, or "" and a fault.
func (p *usersParser) text(n *yaml.Node, what string) string {
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str":
		p.faults.add(n.Line, `put it in quotes`, "%s is %s, not a string", what, describe(n))
		return ""
	case n.Value == "":
		p.faults.add(n.Line, "", "%s is empty", what)
	}
	return n.Value
}

func (p *usersParser) boolean(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
		p.faults.add(n.Line, "write true or false", "%s is %s, neither true nor false", what, describe(n))
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!str":
		return "a string"
	case "!!bool":
		return "a boolean"
	case "!!int", "!!float":
		return "a number"
	}
	return "of another type"
}
