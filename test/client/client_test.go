// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
)

func TestDiff(t *testing.T) {
	a := client.Data{"{x}": {{T: 1, Bits: 1}, {T: 2, Bits: 2}, {T: 4, Bits: 4}}, "{y}": {{T: 1}}}
	b := client.Data{"{x}": {{T: 1, Bits: 1}, {T: 2, Bits: 9}, {T: 3, Bits: 3}}, "{z}": {{T: 1}}}
	require.Nil(t, client.Diff(a, a, 10))
	require.Len(t, client.Diff(a, b, 10), 5)
	require.Len(t, client.Diff(a, b, 2), 3, "two differences and a count of the rest")
}

func TestDigestSeesEveryPart(t *testing.T) {
	data := func() client.Data { return client.Data{"{x}": {{T: 1, Bits: 1}, {T: 2, Hist: "h"}}} }
	base := data().Digest()
	require.Equal(t, base, data().Digest())
	for name, change := range map[string]func(client.Data){
		"series": func(d client.Data) { d["{y}"] = nil },
		"time":   func(d client.Data) { d["{x}"][0].T++ },
		"value":  func(d client.Data) { d["{x}"][0].Bits++ },
		"hist":   func(d client.Data) { d["{x}"][1].Hist = "g" },
		"length": func(d client.Data) { d["{x}"] = d["{x}"][:1] },
	} {
		d := data()
		change(d)
		require.NotEqual(t, base, d.Digest(), name)
	}
}
