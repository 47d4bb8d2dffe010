// Decodes dashboards strictly into the types of Grafana's foundation SDK: an unknown field, a missing one or one of a
// wrong type is an error, down to the options of each panel and its queries.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	for _, path := range os.Args[1:] {
		if err := check(path); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
	}
}

func check(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var decoded dashboard.Dashboard
	if err := decoded.UnmarshalJSONStrict(raw); !isNothing(err) {
		return err
	}
	if err := decoded.Validate(); !isNothing(err) {
		return err
	}
	return checkFieldConfigs(raw)
}

// The strict decoder of a panel decodes `fieldConfig`, save for its `custom`, as if it were not strict.
func checkFieldConfigs(raw []byte) error {
	var parts struct{ Panels []panel }
	if err := json.Unmarshal(raw, &parts); err != nil {
		return err
	}
	for _, outer := range parts.Panels {
		for _, panel := range append(outer.Panels, outer) {
			if len(panel.FieldConfig) == 0 && panel.Type == "row" {
				continue
			}
			var decoded dashboard.FieldConfigSource
			if err := decoded.UnmarshalJSONStrict(panel.FieldConfig); !isNothing(err) {
				return fmt.Errorf("panel %q: %w", panel.Title, err)
			}
		}
	}
	return nil
}

// A panel, or a row; one that is closed holds its panels.
type panel struct {
	Title       string
	Type        string
	FieldConfig json.RawMessage
	Panels      []panel
}

// The SDK returns an empty list of errors, which is not nil, where there is none.
func isNothing(err error) bool {
	var list cog.BuildErrors
	return err == nil || errors.As(err, &list) && len(list) == 0
}
