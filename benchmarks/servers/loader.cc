// Loads a SavedModel with the loader of TensorFlow Serving and answers requests from standard input.
//
//   loader MODEL [REPEATS]
//
// Requests and answers are serialized tensorflow.NameAttrList messages, each after its length as uint32: the name is
// the signature, the attributes are the tensors by name. A failed request is answered with the error as name. With
// REPEATS each request runs that often again, and the answer holds the seconds of these runs as "seconds".

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/attr_value.pb.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/public/session.h"
#include "tensorflow/core/public/session_options.h"

namespace {

using tensorflow::NameAttrList;
using tensorflow::Tensor;

bool Read(NameAttrList* request) {
  std::uint32_t size = 0;
  if (std::fread(&size, sizeof size, 1, stdin) != 1) return false;
  std::string bytes(size, '\0');
  return std::fread(bytes.data(), 1, size, stdin) == size && request->ParseFromString(bytes);
}

void Write(const NameAttrList& answer) {
  const std::string bytes = answer.SerializeAsString();
  const std::uint32_t size = bytes.size();
  std::fwrite(&size, sizeof size, 1, stdout);
  std::fwrite(bytes.data(), 1, size, stdout);
  std::fflush(stdout);
}

absl::Status Answer(const tensorflow::SavedModelBundle& model, const NameAttrList& request, int repeats,
                    NameAttrList* answer) {
  const auto& signatures = model.GetSignatures();
  const auto found = signatures.find(request.name());
  if (found == signatures.end()) return absl::NotFoundError("no signature " + request.name());
  std::vector<std::pair<std::string, Tensor>> inputs;
  for (const auto& [name, info] : found->second.inputs()) {
    const auto given = request.attr().find(name);
    if (given == request.attr().end()) return absl::InvalidArgumentError("no input " + name);
    Tensor tensor;
    if (!tensor.FromProto(given->second.tensor())) return absl::InvalidArgumentError("malformed input " + name);
    inputs.emplace_back(info.name(), tensor);
  }
  std::vector<std::string> fetches;
  for (const auto& [name, info] : found->second.outputs()) fetches.push_back(info.name());
  std::vector<Tensor> outputs;
  absl::Status status = model.GetSession()->Run(inputs, fetches, {}, &outputs);
  if (!status.ok()) return status;
  std::size_t place = 0;
  for (const auto& [name, info] : found->second.outputs()) {
    outputs[place++].AsProtoField((*answer->mutable_attr())[name].mutable_tensor());
  }
  Tensor seconds(tensorflow::DT_DOUBLE, tensorflow::TensorShape({repeats}));
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    status = model.GetSession()->Run(inputs, fetches, {}, &outputs);
    if (!status.ok()) return status;
    seconds.flat<double>()(i) = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  if (repeats > 0) seconds.AsProtoField((*answer->mutable_attr())["seconds"].mutable_tensor());
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const int repeats = argc > 2 ? std::atoi(argv[2]) : 0;
  tensorflow::SavedModelBundle model;
  absl::Status status = tensorflow::LoadSavedModel({}, {}, argv[1], {"serve"}, &model);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  for (NameAttrList request; Read(&request); request.Clear()) {
    NameAttrList answer;
    status = Answer(model, request, repeats, &answer);
    if (!status.ok()) {
      answer.Clear();
      answer.set_name(status.ToString());
    }
    Write(answer);
  }
  return 0;
}
