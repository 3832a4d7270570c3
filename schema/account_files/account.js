// What the links of letters do where no app is installed: take the token, and use it when the button is pressed.
// Not before: programs that check mail open links, and some run what they find there.
"use strict";

const MUTATIONS = {
  verifyEmail: "mutation VerifyEmail($input: VerifyEmailInput!) { verifyEmail(input: $input) { ok } }",
  resetPassword: "mutation ResetPassword($input: ResetPasswordInput!) { resetPassword(input: $input) { ok } }",
};

const form = document.getElementById("form");
const message = document.getElementById("message");
const token = new URLSearchParams(location.search).get("token") ?? "";

// Neither history nor a screenshot of the address bar needs it.
history.replaceState(null, "", location.pathname);

async function use() {
  const name = form.dataset.mutation;
  const password = form.elements.namedItem("password");
  const input = password === null ? { token } : { token, password: password.value };
  const answer = await fetch("../graphql", {
    method: "POST",
    // The link is what counts, not who is signed in here.
    credentials: "omit",
    referrerPolicy: "no-referrer",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify({ query: MUTATIONS[name], variables: { input } }),
  });
  const { errors } = await answer.json();
  if (errors?.length) {
    return { done: false, text: errors[0].message };
  }
  return { done: true, text: form.dataset.done };
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  message.textContent = "";
  try {
    const { done, text } = await use();
    form.hidden = done;
    message.textContent = text;
  } catch {
    message.textContent = "The server does not answer; try again in a moment.";
  } finally {
    button.disabled = false;
  }
});

if (token === "") {
  form.hidden = true;
  message.textContent = "This page works from the link in a letter only.";
}
