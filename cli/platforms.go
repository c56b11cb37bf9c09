package cli

import (
	"encoding/json"
	"net/url"

	"github.com/wherry-engine/wherry/ociref"
)

// addPlatforms adds platforms to q as the API's JSON, one value each.
func addPlatforms(q url.Values, key string, platforms []string) error {
	for _, s := range platforms {
		p, err := ociref.ParsePlatform(s)
		if err != nil {
			return err
		}
		raw, err := json.Marshal(struct {
			Architecture string `json:"architecture"`
			OS           string `json:"os"`
			Variant      string `json:"variant,omitempty"`
		}{p.Architecture, p.OS, p.Variant})
		if err != nil {
			return err
		}
		q.Add(key, string(raw))
	}
	return nil
}
