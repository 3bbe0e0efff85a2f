// Fills in templates as Ollama does (its template/template.go): a system message is collected into .System and stays
// among .Messages, neighbours of one role become one message, and missing keys are empty.
//
// Standard input: {"template": "…", "talks": [[{"role": "user", "content": "…"}]]}. Standard output: a list of texts.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type Task struct {
	Template string      `json:"template"`
	Talks    [][]Message `json:"talks"`
}

func collate(talk []Message) (string, []*Message) {
	var system []string
	var collated []*Message
	for i := range talk {
		if talk[i].Role == "system" {
			system = append(system, talk[i].Content)
		}
		if n := len(collated); n > 0 && collated[n-1].Role == talk[i].Role {
			collated[n-1].Content += "\n\n" + talk[i].Content
		} else {
			collated = append(collated, &talk[i])
		}
	}
	return strings.Join(system, "\n\n"), collated
}

func main() {
	var task Task
	if err := json.NewDecoder(os.Stdin).Decode(&task); err != nil {
		panic(err)
	}
	parsed := template.Must(template.New("").Option("missingkey=zero").Parse(task.Template))
	texts := []string{}
	for _, talk := range task.Talks {
		var text strings.Builder
		system, messages := collate(talk)
		data := map[string]any{"System": system, "Messages": messages, "Response": ""}
		if err := parsed.Execute(&text, data); err != nil {
			panic(err)
		}
		texts = append(texts, text.String())
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(texts); err != nil {
		panic(err)
	}
}
