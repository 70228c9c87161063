package tracing_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	general = "OTEL_EXPORTER_OTLP_"
	traces  = "OTEL_EXPORTER_OTLP_TRACES_"
)

func TestWhatCannotBeDoneIsRefused(t *testing.T) {
	noCertificate := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(noCertificate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, values := range map[string][]string{
		"OTEL_SDK_DISABLED":                      {"yes"},
		"OTEL_TRACES_EXPORTER":                   {"console"},
		general + "PROTOCOL":                     {"grpc"},
		traces + "PROTOCOL":                      {"http/json"},
		general + "ENDPOINT":                     {"collector:4317", "http://:4318", "http://%zzhunter2"},
		traces + "ENDPOINT":                      {"http://user:hunter2@", "http://user:hunter2@collector", "http://collector/?key=hunter2", "http://c/#hunter2"},
		general + "HEADERS":                      {"authorization: Bearer hunter2", "api key=hunter2", "api-key=%zzhunter2", "a=b,hunter2", "a=hunter2%0Ab", "=hunter2"},
		traces + "HEADERS":                       {"authorization: Bearer hunter2=="},
		general + "COMPRESSION":                  {"bogus"},
		traces + "COMPRESSION":                   {"GZIP"},
		general + "INSECURE":                     {"1"},
		general + "TIMEOUT":                      {"abc", "0", "10s"},
		traces + "TIMEOUT":                       {"-1", "600001", "99999999999999999999"},
		general + "CERTIFICATE":                  {"/hunter2", noCertificate},
		traces + "CERTIFICATE":                   {"/hunter2"},
		general + "CLIENT_CERTIFICATE":           {noCertificate, "/hunter2"},
		traces + "CLIENT_KEY":                    {"/hunter2"},
		"OTEL_RESOURCE_ATTRIBUTES":               {"hunter2", "a=%zzhunter2", "=hunter2"},
		"OTEL_TRACES_SAMPLER":                    {"jaeger_remote"},
		"OTEL_TRACES_SAMPLER_ARG":                {"NaN"},
		"OTEL_PROPAGATORS":                       {"tracecontext,b3"},
		"OTEL_BSP_SCHEDULE_DELAY":                {"0", "-5", "9", "abc", "3600001"},
		"OTEL_BSP_EXPORT_TIMEOUT":                {"0", "-1"},
		"OTEL_BSP_MAX_QUEUE_SIZE":                {"-1", "0", "100001", "99999999999", " 5"},
		"OTEL_BSP_MAX_EXPORT_BATCH_SIZE":         {"-5", "0", "2049", "10001"},
		"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT":      {"-2"},
		"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": {"1000001"},
		"OTEL_ATTRIBUTE_COUNT_LIMIT":             {"many"},
		"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT":        {"-7"},
		"OTEL_SPAN_EVENT_COUNT_LIMIT":            {"-7"},
		"OTEL_SPAN_LINK_COUNT_LIMIT":             {"-7"},
		"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT":       {"-7"},
		"OTEL_LINK_ATTRIBUTE_COUNT_LIMIT":        {"-7"},
	} {
		for _, value := range values {
			t.Run(name+"="+value, func(t *testing.T) {
				variables := map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "traceidratio"}
				variables[name] = value
				spans, log, err := start(t, variables)
				if err == nil || spans != nil || !strings.HasPrefix(err.Error(), name+": ") || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%v, %v; want an error that names %s", spans, err, name)
				}
				if log.Len() > 0 {
					t.Errorf("the log says %s", log)
				}
				spans.Close()
			})
		}
	}
}

func TestTheEndsOfEachRangeAreTaken(t *testing.T) {
	for name, values := range map[string][]string{
		general + "ENDPOINT":                     {"http://127.0.0.1:1/key/v1"},
		general + "HEADERS":                      {"authorization=Bearer%20x==, x-scope=a%2Cb", "empty="},
		general + "COMPRESSION":                  {"none", "gzip"},
		general + "INSECURE":                     {"True"},
		general + "TIMEOUT":                      {"1", "600000"},
		"OTEL_RESOURCE_ATTRIBUTES":               {"a=b,c=%20"},
		"OTEL_BSP_SCHEDULE_DELAY":                {"10", "3600000"},
		"OTEL_BSP_EXPORT_TIMEOUT":                {"1", "600000"},
		"OTEL_BSP_MAX_QUEUE_SIZE":                {"1", "100000"},
		"OTEL_BSP_MAX_EXPORT_BATCH_SIZE":         {"1", "2048"},
		"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": {"-1", "0", "1000000"},
	} {
		for _, value := range values {
			t.Run(name+"="+value, func(t *testing.T) {
				spans, _, err := start(t, map[string]string{"OTEL_TRACES_EXPORTER": "otlp", name: value})
				if err != nil || spans == nil {
					t.Fatalf("%v, %v", spans, err)
				}
				spans.Close()
			})
		}
	}
}
